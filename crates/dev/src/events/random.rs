//! A small generator of random numbers whose output never changes, unlike a crate's: equal seeds must
//! give equal events for ever. SplitMix64, public domain.

pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// One of `items`; the first ones more often, as in life.
    pub(super) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let bound = items.len() as u64;
        let index = self.below(bound).min(self.below(bound));
        &items[usize::try_from(index).expect("an index below a length fits")]
    }

    /// `len` characters of `alphabet`.
    pub(super) fn text(&mut self, alphabet: &[u8], len: usize) -> String {
        let bound = alphabet.len() as u64;
        let mut next = || {
            let index = usize::try_from(self.below(bound)).expect("an index below a length fits");
            char::from(alphabet[index])
        };
        (0..len).map(|_| next()).collect()
    }
}
