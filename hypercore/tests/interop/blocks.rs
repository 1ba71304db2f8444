//! Blocks that both sides can make: their content follows from index and size (`../node/lib.js`, `block`).

/// Sizes of blocks, as in `4*11,1*0`: four blocks of 11 bytes and an empty one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec(pub(crate) &'static str);

impl Spec {
    pub(crate) fn sizes(self) -> impl Iterator<Item = usize> {
        self.0
            .split(',')
            .filter(|run| !run.is_empty())
            .flat_map(|run| {
                let (count, size) = run.split_once('*').expect("a run is COUNT*SIZE");
                let number = |text: &str| text.parse::<usize>().expect("a decimal number");
                std::iter::repeat_n(number(size), number(count))
            })
    }

    pub(crate) fn length(self) -> usize {
        self.sizes().count()
    }

    pub(crate) fn byte_length(self) -> usize {
        self.sizes().sum()
    }

    /// The blocks, the first of which is block `start` of its log.
    pub(crate) fn blocks_from(self, start: usize) -> impl Iterator<Item = Vec<u8>> {
        self.sizes()
            .enumerate()
            .map(move |(i, size)| block(start + i, size))
    }

    /// All blocks joined.
    pub(crate) fn bytes(self) -> Vec<u8> {
        self.blocks_from(0).flatten().collect()
    }

    /// One block a line.
    pub(crate) fn lines_from(self, start: usize) -> Vec<u8> {
        let mut lines = Vec::new();
        for block in self.blocks_from(start) {
            lines.extend(block);
            lines.push(b'\n');
        }
        lines
    }
}

/// The content of a block. Never a line feed or a carriage return, so that a block can be a line of text.
pub(crate) fn block(index: usize, size: usize) -> Vec<u8> {
    let index = u32::try_from(index).expect("tests have small indexes");
    let mut state = index.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..size)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            match state.to_be_bytes()[0] {
                byte @ (b'\n' | b'\r') => byte ^ 0x10,
                byte => byte,
            }
        })
        .collect()
}
