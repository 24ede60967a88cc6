import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

table = pa.table({"n": list(range(10000)), "word": ["a", "b"] * 5000})
pq.write_table(table, "table.parquet", compression="zstd")
back = pq.read_table("table.parquet", memory_map=True)
print(back.equals(table), pc.sum(back["n"]).as_py())
ds.write_dataset(table, "parts", format="parquet", partitioning=["word"], partitioning_flavor="hive")
print(ds.dataset("parts", partitioning="hive").to_table(filter=ds.field("word") == "b").num_rows)
# -> True 49995000
# -> 5000
