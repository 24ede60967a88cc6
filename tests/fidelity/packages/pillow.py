import io

from PIL import Image, ImageDraw, ImageFont

image = Image.new("RGB", (200, 100), "white")
ImageDraw.Draw(image).text((10, 10), "sandbox", fill="black", font=ImageFont.load_default(size=24))
print(len(image.getcolors(4096)) > 2)
small = image.resize((50, 25), Image.Resampling.LANCZOS)
for kind in ("PNG", "JPEG", "WEBP", "GIF"):
    small.save(f"small.{kind.lower()}", kind)
    with Image.open(f"small.{kind.lower()}") as back:
        back.load()
        print(back.format, back.size)
# -> True
# -> PNG (50, 25)
# -> JPEG (50, 25)
# -> WEBP (50, 25)
# -> GIF (50, 25)
