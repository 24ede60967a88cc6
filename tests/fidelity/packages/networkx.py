import networkx as nx

graph = nx.Graph()
graph.add_weighted_edges_from([("a", "b", 4), ("a", "c", 1), ("c", "b", 2), ("b", "d", 5)])
print(nx.shortest_path(graph, "a", "d", weight="weight"), nx.shortest_path_length(graph, "a", "d", weight="weight"))
nx.write_graphml(graph, "graph.graphml")
print(nx.read_graphml("graph.graphml").number_of_edges())
ranks = nx.pagerank(nx.karate_club_graph())
print(max(ranks, key=ranks.get))
# -> ['a', 'c', 'b', 'd'] 8
# -> 4
# -> 33
