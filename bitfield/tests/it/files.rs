//! Whole `bitfield` files of real logs: read, and written again.

use crate::vectors;
use hypercore_bitfield::{Bitfield, PageSize};

const HEADER: usize = 32;

fn load(name: &str) -> (Bitfield, Vec<u8>) {
    let file = std::fs::read(vectors::path("files").join(name)).unwrap();
    let size = PageSize::from_bytes(u16::from_be_bytes([file[5], file[6]])).unwrap();
    let mut bitfield = Bitfield::new(size);
    for (page, bytes) in (0..).zip(file[HEADER..].chunks(size.bytes())) {
        bitfield.load_page(page, bytes);
    }
    (bitfield, file[HEADER..].to_vec())
}

fn encode(bitfield: &Bitfield) -> Vec<u8> {
    let mut pages = vec![0; bitfield.page_count() as usize * bitfield.page_size().bytes()];
    for (page, out) in (0..).zip(pages.chunks_exact_mut(bitfield.page_size().bytes())) {
        bitfield.encode_page(page, out);
    }
    pages
}

#[test]
fn files_are_written_as_they_were_read() {
    for name in [
        "blocks-1",
        "blocks-1000",
        "blocks-9000",
        "cleared",
        "cleared-tail",
        "truncated",
        "hash-only-clone-10",
        "sparse-clone-10",
        "sparse-clone-9000",
        "v6-blocks-12",
        "v6-blocks-8300",
    ] {
        let (bitfield, file) = load(name);
        assert_eq!(bitfield.dirty_pages().count(), 0);
        let written = encode(&bitfield);
        if name == "v6-blocks-8300" {
            // Its second page came when most blocks were there, and what it should summarise was forgotten.
            let (data, index) = (0..3072, 3072..3328);
            for (ours, js) in written.chunks(3328).zip(file.chunks(3328)) {
                assert_eq!(ours[data.clone()], js[data.clone()]);
                assert!(index.clone().all(|at| js[at] & !ours[at] == 0));
            }
        } else {
            assert!(written == file, "{name}");
        }
    }
}
