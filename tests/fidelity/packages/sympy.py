from sympy import Integral, Matrix, Rational, cos, exp, integrate, latex, oo, pi, simplify, sin, solve, sqrt, symbols

x, y = symbols("x y")
print(integrate(exp(-x**2), (x, -oo, oo)) == sqrt(pi), integrate(x * cos(x), x))
print(solve(x**2 - 2, x), simplify(sin(y) ** 2 + cos(y) ** 2))
print(Matrix([[1, 2], [3, 4]]).det(), latex(Integral(x, x)))
print(sqrt(2).evalf(40), Rational(1, 3) + Rational(1, 6))
# -> True x*sin(x) + cos(x)
# -> [-sqrt(2), sqrt(2)] 1
# -> -2 \int x\, dx
# -> 1.414213562373095048801688724209698078570 1/2
