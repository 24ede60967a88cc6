from sqlalchemy import ForeignKey, create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    books: Mapped[list["Book"]] = relationship(back_populates="author")


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author] = relationship(back_populates="books")


engine = create_engine("sqlite:///books.db")
Base.metadata.create_all(engine)
with Session(engine) as session:
    session.add_all([Author(name="Ada", books=[Book(title="One"), Book(title="Two")]), Author(name="Bob")])
    session.commit()
with Session(engine) as session:
    query = select(Author.name, func.count(Book.id)).outerjoin(Book).group_by(Author.name).order_by(Author.name)
    print([tuple(row) for row in session.execute(query)])
    print(session.scalars(select(Book).where(Book.title == "Two")).one().author.name)
print(open("books.db", "rb").read(15))
# -> [('Ada', 2), ('Bob', 0)]
# -> Ada
# -> b'SQLite format 3'
