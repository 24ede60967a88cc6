import polars as pl

pl.DataFrame({"kind": ["a", "b", "a", "c"] * 1000, "value": range(4000)}).write_csv("frame.csv")
query = (
    pl.scan_csv("frame.csv")
    .filter(pl.col("value") >= 4)
    .group_by("kind")
    .agg(pl.col("value").sum().alias("total"), pl.len().alias("rows"))
    .sort("kind")
)
print(query.collect().rows())
frame = query.collect()
frame.write_parquet("frame.parquet")
print(pl.read_parquet("frame.parquet").equals(frame))
# -> [('a', 3997998, 1998), ('b', 1998999, 999), ('c', 2000997, 999)]
# -> True
