import numpy as np

a = np.array([[4.0, 1.0], [1.0, 3.0]])
print(np.allclose(np.linalg.solve(a, [1.0, 2.0]), [1 / 11, 7 / 11]))
# Large enough for BLAS to use its threads, were there any.
rng = np.random.default_rng(1)
m = rng.normal(size=(600, 600))
u, s, vt = np.linalg.svd(m)
print(np.allclose(u * s @ vt, m), u.shape)
np.save("m.npy", m)
print(np.array_equal(np.load("m.npy", mmap_mode="r"), m))
# -> True
# -> True (600, 600)
# -> True
