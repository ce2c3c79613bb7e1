"""A RocksDB folder whose files are broken is put aside, and recovery fills a new one from the changelog."""

import os

import pytest

from agents.application import build
from agents.score import stage
from topics.installation import Installation


@pytest.mark.parametrize("what", ["CURRENT", "MANIFEST-*", "*.sst"])
@pytest.mark.parametrize("how", [b"", b"garbage" * 100, None])
def test_a_broken_folder_is_put_aside(tmp_path, what, how, caplog):
    def store():
        return build(stage, Installation("127.0.0.1:1", partitions=1, data_dir=tmp_path)).runner.store

    first = store()
    db = first._db(0)
    for number in range(1000):
        db[b"\x01k%d" % number] = os.urandom(50)
    db.flush()
    db[b"\x01last"] = b"x"
    db.close()
    path = first.table.data.partition_path(0)
    for file in path.glob(what):
        file.unlink() if how is None else file.write_bytes(how)
    again = store()
    assert again._db(0).get(b"\x01k1") is None and again.epoch(0) == bytes(4)
    (aside,) = [other for other in path.parent.iterdir() if ".broken-" in other.name]
    assert str(aside) in caplog.text and "rebuilt from the changelog" in caplog.text
    again._db(0).close()


def test_a_lock_of_another_process_is_no_damage(tmp_path):
    def store():
        return build(stage, Installation("127.0.0.1:1", partitions=1, data_dir=tmp_path)).runner.store

    first = store()
    first._db(0)
    with pytest.raises(Exception, match="lock"):
        store()._db(0)
    assert not [other for other in first.table.data.partition_path(0).parent.iterdir() if ".broken-" in other.name]
