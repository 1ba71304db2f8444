//! What every storage owes: the same bytes as a plain vector, and one owner of a lock.

use std::io::ErrorKind;

use hypercore_storage::{Directory, FileName, Memory, Storage, testing::FaultStorage};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Truncate(u64),
    PunchHole(u64, u64),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let at = || 0u64..20_000;
    let change = prop_oneof![
        (at(), 0usize..9000, 1u8..).prop_map(|(at, len, byte)| Change::Write(at, vec![byte; len])),
        at().prop_map(Change::Truncate),
        (at(), at()).prop_map(|(at, len)| Change::PunchHole(at, len)),
        at().prop_map(|at| Change::PunchHole(at, u64::MAX)),
    ];
    prop::collection::vec(change, 1..12)
}

fn check(storage: &impl Storage, changes: &[Change]) {
    let file = storage.open(FileName::Data).unwrap();
    let mut model = Vec::new();
    for change in changes {
        match change {
            Change::Write(at, data) => {
                file.write_at(*at, data).unwrap();
                let at = *at as usize;
                if !data.is_empty() {
                    model.resize(model.len().max(at + data.len()), 0);
                    model[at..at + data.len()].copy_from_slice(data);
                }
            }
            Change::Truncate(len) => {
                file.truncate(*len).unwrap();
                model.truncate(*len as usize);
            }
            Change::PunchHole(at, len) => {
                file.punch_hole(*at, *len).unwrap();
                model
                    .iter_mut()
                    .skip(*at as usize)
                    .take(*len as usize)
                    .for_each(|byte| *byte = 0);
            }
        }
        assert_eq!(file.len().unwrap(), model.len() as u64, "{change:?}");
        let mut bytes = vec![9; model.len()];
        file.read_at(0, &mut bytes).unwrap();
        assert!(bytes == model, "{change:?}");
        for offset in (0..=model.len()).step_by(1777) {
            let next = file.next_data(offset as u64).unwrap() as usize;
            assert!(next >= offset, "{change:?}");
            let skipped = &model[offset..next.min(model.len())];
            assert!(skipped.iter().all(|&byte| byte == 0), "{change:?}");
        }
        let beyond = file.read_at(model.len() as u64, &mut [0]).unwrap_err();
        assert_eq!(beyond.kind(), ErrorKind::UnexpectedEof);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn storages_equal_a_vector(changes in changes()) {
        check(&Memory::new(), &changes);
        // Punches holes with the default of the trait.
        check(&FaultStorage::new(), &changes);
        check(&Directory::new(tempfile::tempdir().unwrap().path()), &changes);
    }
}

#[test]
fn a_hole_in_memory_is_passed_at_once() {
    const FAR: u64 = 1 << 40;
    let file = Memory::new().open(FileName::Tree).unwrap();
    file.write_at(10, &[1]).unwrap();
    file.write_at(FAR, &[1]).unwrap();
    assert_eq!(file.next_data(10).unwrap(), 10);
    let next = file.next_data(100_000).unwrap();
    assert!((FAR - 100_000..=FAR).contains(&next), "{next}");
    assert_eq!(file.next_data(FAR + 1_000_000).unwrap(), FAR + 1_000_000);
}

#[test]
fn a_refused_lock_can_be_asked_for_again() {
    fn check(storage: &impl Storage) {
        let open = || storage.open(FileName::Bitfield).unwrap();
        let (first, second) = (open(), open());
        first.write_at(0, b"x").unwrap();
        first.lock().unwrap();
        first.lock().unwrap();
        for _ in 0..2 {
            assert_eq!(second.lock().unwrap_err().kind(), ErrorKind::WouldBlock);
        }
        drop(first);
        second.lock().unwrap();
        assert_eq!(open().lock().unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    check(&Memory::new());
    check(&Directory::new(tempfile::tempdir().unwrap().path()));
}

#[test]
fn a_hole_behind_the_end_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let storages: [&dyn Storage; 3] = [
        &Memory::new(),
        &Directory::new(directory.path()),
        &FaultStorage::new(),
    ];
    for storage in storages {
        let file = storage.open(FileName::Data).unwrap();
        file.write_at(0, &[7; 5000]).unwrap();
        for (offset, len) in [
            (u64::MAX, 1),
            (u64::MAX, u64::MAX),
            (5000, 1),
            (u64::MAX - 4000, 9),
        ] {
            file.punch_hole(offset, len).unwrap();
        }
        let mut bytes = [0; 5000];
        file.read_at(0, &mut bytes).unwrap();
        assert_eq!((file.len().unwrap(), bytes), (5000, [7; 5000]));
    }
}
