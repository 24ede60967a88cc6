import struct

# No backend is named: without a display it has to find Agg by itself. A first import also builds the cache of fonts.
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(4, 3), dpi=100)
axes.plot([0, 1, 2], [0, 1, 4], label="squares")
axes.set_title("$x^2$ — äöü")
axes.legend()
figure.savefig("plot.png")
data = open("plot.png", "rb").read()
print(data[:8], struct.unpack(">II", data[16:24]), len(data) > 5000)
figure.savefig("plot.svg")
figure.savefig("plot.pdf")
print(open("plot.pdf", "rb").read(5))
# -> b'\x89PNG\r\n\x1a\n' (400, 300) True
# -> b'%PDF-'
