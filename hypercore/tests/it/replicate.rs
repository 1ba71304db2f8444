//! Replication between cores in this process, over TCP.

use hypercore::ReplicateOptions;

use crate::support::{clone_of, connect, run, writer};

#[test]
fn a_clone_downloads_everything_and_both_sides_end() {
    run(async {
        for count in [0, 1, 2, 3, 10, 1000, 9001] {
            let origin = writer(count).await;
            let clone = clone_of(&origin, false).await;
            let ends = connect(
                &clone,
                ReplicateOptions::default(),
                &origin,
                ReplicateOptions::default(),
            )
            .await
            .await;
            assert!(ends.0.is_ok() && ends.1.is_ok(), "{ends:?}");
            assert_eq!(clone.length(), count as u64);
            assert_eq!(clone.downloaded(..), count as u64);
            for index in 0..count {
                assert_eq!(
                    clone.get(index as u64).await.unwrap(),
                    format!("block {index}")
                );
            }
        }
    });
}

#[test]
fn a_live_sparse_clone_reads_what_it_asks_for() {
    run(async {
        let origin = writer(100).await;
        let clone = clone_of(&origin, true).await;
        let _running = connect(
            &clone,
            ReplicateOptions::live(),
            &origin,
            ReplicateOptions::live(),
        )
        .await;
        assert_eq!(clone.update().await.unwrap(), 100);
        assert_eq!(clone.get(42).await.unwrap(), "block 42");
        assert_eq!(clone.downloaded(..), 1);
        origin.append("new").await.unwrap();
        assert_eq!(clone.update().await.unwrap(), 101);
        assert_eq!(clone.head().await.unwrap(), "new");
        let position = clone.seek(300).await.unwrap();
        assert_eq!(position, origin.seek(300).await.unwrap());
    });
}
