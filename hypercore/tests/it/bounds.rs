//! What can be sent to other threads: everything, as an executor with several threads wants it.

use async_std::net::TcpStream;
use hypercore::{
    Admission, Admitted, ByteStream, Download, DownloadOptions, Error, Event, Events, Extension,
    GetOptions, Hypercore, OpenOptions, ReadStream, ReplicateOptions, Replication,
    ReplicationHandle, SeekOptions, Typed, TypedReadStream, UpdateOptions, Utf8, WriteStream,
    merkle::Proof, storage::Memory,
};

fn is_shared<T: Send + Sync + Unpin>() {}

fn is_sent<T: Send>() {}

fn can_be_sent<T: Send>(_: T) {}

#[test]
fn values_can_be_sent() {
    is_shared::<Hypercore>();
    is_shared::<Typed<Utf8>>();
    is_shared::<Extension>();
    is_shared::<ReplicationHandle>();
    is_shared::<Admission>();
    is_shared::<Admitted>();
    is_shared::<Error>();
    is_shared::<Event>();
    is_sent::<OpenOptions>();
    is_sent::<ReplicateOptions>();
    is_sent::<Replication>();
    is_sent::<Events>();
    is_sent::<Download>();
    is_sent::<ReadStream>();
    is_sent::<TypedReadStream<Utf8>>();
    is_sent::<ByteStream>();
    is_sent::<WriteStream>();
}

/// Nobody calls it: that it compiles is the test.
#[expect(dead_code, reason = "that it compiles is the test")]
fn futures_can_be_sent(core: &Hypercore, transport: TcpStream, replication: Replication) {
    can_be_sent(OpenOptions::new().open("directory"));
    can_be_sent(OpenOptions::new().open_memory());
    can_be_sent(OpenOptions::new().open_storage(Memory::new()));
    can_be_sent(core.append("block"));
    can_be_sent(core.append_batch(["block"]));
    can_be_sent(core.clear(..));
    can_be_sent(core.truncate(0));
    can_be_sent(core.finalize());
    can_be_sent(core.flush());
    can_be_sent(core.close());
    can_be_sent(core.destroy());
    can_be_sent(core.resume());
    can_be_sent(core.accept_fork_risk());
    can_be_sent(core.get_with(0, GetOptions::default()));
    can_be_sent(core.head_with(GetOptions::default()));
    can_be_sent(core.get_batch_with(.., GetOptions::default()));
    can_be_sent(core.seek_with(0, SeekOptions::default()));
    can_be_sent(core.update_with(UpdateOptions::default()));
    can_be_sent(core.download_with(.., DownloadOptions::default()));
    can_be_sent(core.audit());
    can_be_sent(core.verify());
    can_be_sent(Hypercore::verify_storage(Memory::new()));
    can_be_sent(Hypercore::repair_storage(Memory::new()));
    can_be_sent(core.put(0, None, &Proof::default()));
    can_be_sent(core.proof(0));
    can_be_sent(core.signature(0));
    can_be_sent(core.root_hashes(0));
    can_be_sent(core.block_info(0));
    can_be_sent(core.with_codec(Utf8).append(&String::new()));
    can_be_sent(core.with_codec(Utf8).get(0));
    can_be_sent(replication.run(transport));
}
