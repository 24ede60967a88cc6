from datetime import date

from openpyxl import Workbook, load_workbook
from openpyxl.chart import BarChart, Reference

book = Workbook()
sheet = book.active
for row in [("name", "value"), ("a", 1), ("ü", 2.5)]:
    sheet.append(row)
sheet["C1"] = date(2024, 2, 29)
sheet["B4"] = "=SUM(B2:B3)"
chart = BarChart()
chart.add_data(Reference(sheet, min_col=2, min_row=1, max_row=3), titles_from_data=True)
sheet.add_chart(chart, "E2")
book.save("book.xlsx")
back = load_workbook("book.xlsx").active
print([[cell.value for cell in row[:2]] for row in back.iter_rows()])
print(back["C1"].value.date())
# -> [['name', 'value'], ['a', 1], ['ü', 2.5], [None, '=SUM(B2:B3)']]
# -> 2024-02-29
