import duckdb

connection = duckdb.connect("base.duckdb")
connection.sql("CREATE TABLE t AS SELECT range AS n, range % 3 AS kind FROM range(300000)")
print(connection.sql("SELECT kind, count(*), sum(n)::BIGINT FROM t GROUP BY kind ORDER BY kind").fetchall())
connection.sql("COPY (SELECT * FROM t WHERE n < 10) TO 'ten.csv' (HEADER)")
print(duckdb.sql("SELECT max(n) FROM 'ten.csv'").fetchall())
connection.close()
print(duckdb.connect("base.duckdb", read_only=True).sql("SELECT count(*) FROM t").fetchall())
# -> [(0, 100000, 14999850000), (1, 100000, 14999950000), (2, 100000, 15000050000)]
# -> [(9,)]
# -> [(300000,)]
