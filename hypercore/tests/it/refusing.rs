//! What a writer does not take in: a log of its own key that is longer than its own.

use hypercore::{AppendLock, Error, GetOptions, Hypercore, WaitsOn};

use crate::support::{connected, eventually, key_pair, options, run, soon, tcp_pair};

/// A writer of as many blocks as `ours`, whose first is cleared, and a log of the same key that goes on
/// from there, connected.
async fn shorter_and_longer(ours: u64, theirs: u64) -> (Hypercore, Hypercore) {
    let open = async || {
        let options = Hypercore::options().key_pair(key_pair("twice"));
        options.open_memory().await.unwrap()
    };
    let (shorter, longer) = (open().await, open().await);
    let blocks = |count| (0..count).map(|index: u64| index.to_string());
    shorter.append_batch(blocks(ours)).await.unwrap();
    longer.append_batch(blocks(ours)).await.unwrap();
    longer
        .append_batch(blocks(theirs).skip(ours as usize))
        .await
        .unwrap();
    shorter.clear(0..1).await.unwrap();
    (shorter, longer)
}

async fn connect(shorter: &Hypercore, longer: &Hypercore) {
    let (here, there) = tcp_pair().await;
    let downloading = options(|options| {
        options.live = true;
        options.download = Some(true);
    });
    let serving = options(|options| options.live = true);
    let ours = shorter.replicate(hypercore::Role::Initiator, downloading);
    let theirs = longer.replicate(hypercore::Role::Responder, serving);
    async_std::task::spawn(ours.unwrap().run(here));
    async_std::task::spawn(theirs.unwrap().run(there));
    connected(shorter, 1).await;
}

async fn waits_for_nobody(core: &Hypercore) {
    eventually("nobody to wait for", async || {
        let waiting = core.waiting();
        waiting.iter().all(|waiting| waiting.on == WaitsOn::Nobody)
    })
    .await;
}

/// It waited for ever, for a peer that would be asked as soon as there was room.
#[test]
fn a_block_that_is_not_taken_in_is_not_available() {
    run(async {
        let (writer, longer) = shorter_and_longer(10, 12).await;
        connect(&writer, &longer).await;
        let waits = writer.clone();
        let late = async_std::task::spawn(async move { waits.get(11).await });
        eventually("a lock", async || {
            matches!(
                writer.append_lock(),
                Some(AppendLock::Behind { theirs: 12, .. })
            )
        })
        .await;
        let ended = soon(
            "a refusal",
            writer.get_with(11, GetOptions::default().if_available(true)),
        )
        .await;
        assert!(matches!(ended, Err(Error::NotAvailable)), "{ended:?}");
        waits_for_nobody(&writer).await;

        writer.resume().await.unwrap();
        assert_eq!(soon("a block", late).await.unwrap(), "11");
    });
}

/// What was refused held up what was cleared, and all of it came for nothing.
#[test]
fn a_download_beyond_the_end_is_not_asked_for() {
    run(async {
        let (writer, longer) = shorter_and_longer(10, 5_000).await;
        let download = writer.download(0..5_000);
        connect(&writer, &longer).await;
        eventually("a lock", async || writer.append_lock().is_some()).await;
        eventually("the block that was cleared", async || writer.has(0)).await;
        waits_for_nobody(&writer).await;
        let sent = longer.stats().uploaded_blocks;
        assert!(sent < 2_000, "{sent} blocks came for nothing");

        writer.resume().await.unwrap();
        soon("the rest", download).await.unwrap();
        assert_eq!(writer.downloaded(..), 5_000);
    });
}
