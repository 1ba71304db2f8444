//! Numbers that look random, the same in every run.

/// A xorshift generator.
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// A generator that gives other numbers for each seed.
    pub(super) const fn seeded(seed: u64) -> Self {
        // Multiplied by an odd number, and never 0.
        Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 << 63)
    }

    /// A number below this one, or 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % end.max(1)
    }

    pub(super) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}
