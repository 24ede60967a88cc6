import numpy as np
from scipy import integrate, optimize, sparse, stats
from scipy.sparse.linalg import spsolve

# A pool of processes starts by importing this file again.
if __name__ == "__main__":
    found = optimize.minimize(optimize.rosen, [1.3, 0.7, 0.8], method="BFGS")
    print(np.allclose(found.x, 1, atol=1e-4))
    print(round(integrate.quad(lambda x: np.exp(-x * x), -np.inf, np.inf)[0] ** 2, 6))
    print(np.allclose(spsolve(sparse.eye(50, format="csc") * 2, np.ones(50)), 0.5))
    print(round(stats.norm.ppf(0.975), 4))
    best = optimize.differential_evolution(optimize.rosen, [(0, 2)] * 2, rng=1, workers=2, updating="deferred")
    print(round(best.fun, 4))
# -> True
# -> 3.141593
# -> True
# -> 1.96
# -> 0.0
