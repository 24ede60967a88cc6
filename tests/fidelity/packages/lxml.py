from lxml import etree, html

tree = etree.fromstring("<shelf><book year='1999'>A</book><book year='2005'>B</book></shelf>")
print(tree.xpath("//book[@year > 2000]/text()"))
tree.getroottree().write("shelf.xml", encoding="utf-8", xml_declaration=True)
print(etree.parse("shelf.xml").xpath("count(//book)"))
print(html.fromstring("<p>one<p>two <b>three</b>").xpath("string(//b)"))
style = etree.XSLT(etree.XML(
    "<xsl:stylesheet version='1.0' xmlns:xsl='http://www.w3.org/1999/XSL/Transform'>"
    "<xsl:template match='/'><n><xsl:value-of select='count(//book)'/></n></xsl:template></xsl:stylesheet>"
))
print(style(tree).getroot().text)
# -> ['B']
# -> 2.0
# -> three
# -> 2
