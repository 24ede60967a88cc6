import pandas as pd

frame = pd.DataFrame({
    "day": pd.date_range("2024-02-28", periods=6, tz="Europe/Berlin"),
    "kind": list("abcabc"),
    "value": [1, 2, 3, 4, 5, 6],
})
frame.to_csv("frame.csv", index=False)
back = pd.read_csv("frame.csv", parse_dates=["day"])
sums = back.groupby("kind")["value"].sum()
print(sums.to_dict())
print(back["value"].tolist() == frame["value"].tolist(), frame["day"].dt.tz_convert("UTC").iloc[0])
print(frame.set_index("day").resample("2D")["value"].sum().tolist())
# -> {'a': 5, 'b': 7, 'c': 9}
# -> True 2024-02-27 23:00:00+00:00
# -> [3, 7, 11]
