from joblib import Parallel, delayed
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score

x, y = load_iris(return_X_y=True)
forest = RandomForestClassifier(50, n_jobs=2, random_state=0).fit(x, y)
print(forest.score(x, y) > 0.95)
# Other processes: loky's, with semaphores and files of shared memory.
scores = cross_val_score(LogisticRegression(max_iter=500), x, y, cv=4, n_jobs=2)
print(len(scores), scores.mean() > 0.9)
print(GridSearchCV(LogisticRegression(max_iter=500), {"C": [0.1, 1.0]}, n_jobs=2).fit(x, y).best_score_ > 0.9)
print(Parallel(n_jobs=2)(delayed(pow)(n, 2) for n in range(5)))
# -> True
# -> 4 True
# -> True
# -> [0, 1, 4, 9, 16]
