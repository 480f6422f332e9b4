#!/usr/bin/env bash
# SQLAlchemy 2.1.9: the session event `after_commit` is called when a savepoint is released, before anything is committed.
#
# A session adds a row in `begin_nested()`, and commits later. A listener of `after_commit` counts the rows by another
# connection. It is called twice: at the end of the nested block, where the other connection sees no row, and at the end of
# the outer one, where it sees the row. If the outer transaction is rolled back, it has been called all the same.
#
# A good guess gets it wrong because the event is named, and documented, for what a commit has done, and leaving
# `begin_nested()` only sends RELEASE SAVEPOINT. Whoever drops cached values there drops them too early: another caller
# reads the old row and stores it again. `after_transaction_end` with `transaction.parent is None` is called once.
#
# Output seen:
#
#     after_commit: another connection sees 0 rows
#     after_commit: another connection sees 1 rows
#     committed
#     after_commit: another connection sees 1 rows
#     rolled back; rows: 1
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check sqlalchemy==2.1.9
cd "$folder"
"$folder/venv/bin/python" - <<'PROGRAM'
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

# Python's sqlite3 begins no transaction at a savepoint; so it is told to begin one itself, as SQLAlchemy's manual advises.
engine = create_engine("sqlite:///rows.sqlite3", connect_args={"isolation_level": None})
event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "row"
    id: Mapped[int] = mapped_column(primary_key=True)


Base.metadata.create_all(engine)
raw = engine.raw_connection()
raw.cursor().execute("PRAGMA journal_mode=WAL")  # so that readers need not wait for the writer
raw.close()
seen = []


def rows():
    with engine.connect() as connection:
        return connection.execute(text("SELECT count(*) FROM row")).scalar()


@event.listens_for(Session, "after_commit")
def committed(session):
    seen.append(rows())
    print(f"after_commit: another connection sees {seen[-1]} rows")


with Session(engine) as session:
    with session.begin_nested():
        session.add(Row(id=1))
    session.commit()
print("committed")
with Session(engine) as session:
    with session.begin_nested():
        session.add(Row(id=2))
    session.rollback()
print("rolled back; rows:", rows())
assert seen == [0, 1, 1]
assert rows() == 1
PROGRAM
