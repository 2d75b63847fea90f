//! The bytes of keys and states: LEB128 integers, zigzag for signed ones, length-prefixed text, lists
//! of times as differences. Every value has exactly one encoding.

use std::collections::VecDeque;

use jiff::Timestamp;

#[derive(Default)]
pub(in crate::correlate) struct Writer(Vec<u8>);

impl Writer {
    pub(in crate::correlate) fn finish(self) -> Vec<u8> {
        self.0
    }

    pub(in crate::correlate) fn text(&mut self, text: &str) {
        self.length(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    pub(in crate::correlate) fn float(&mut self, value: f64) {
        self.0.extend(value.to_bits().to_be_bytes());
    }

    pub(in crate::correlate) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(in crate::correlate) fn length(&mut self, length: usize) {
        self.unsigned(length as u64);
    }

    pub(in crate::correlate) fn unsigned(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    pub(in crate::correlate) fn signed(&mut self, value: i64) {
        self.unsigned(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    pub(in crate::correlate) fn times(&mut self, times: &VecDeque<i64>) {
        self.length(times.len());
        let mut previous = 0_i64;
        for time in times {
            self.signed(time.wrapping_sub(previous));
            previous = *time;
        }
    }

    pub(in crate::correlate) fn entries<V>(
        &mut self,
        entries: &VecDeque<(i64, V)>,
        value: impl Fn(&mut Self, &V),
    ) {
        self.length(entries.len());
        let mut previous = 0_i64;
        for (time, entry) in entries {
            self.signed(time.wrapping_sub(previous));
            previous = *time;
            value(self, entry);
        }
    }
}

pub(in crate::correlate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(in crate::correlate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(in crate::correlate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(in crate::correlate) fn text(&mut self) -> Result<String, String> {
        let length = self.length()?;
        let bytes = self.bytes(length)?.to_vec();
        String::from_utf8(bytes).map_err(|_| "a text in it is not UTF-8".to_owned())
    }

    pub(in crate::correlate) fn bytes(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (head, rest) = self.0.split_at_checked(length).ok_or("it is cut short")?;
        self.0 = rest;
        Ok(head)
    }

    pub(in crate::correlate) fn byte(&mut self) -> Result<u8, String> {
        Ok(self.bytes(1)?[0])
    }

    pub(in crate::correlate) fn unsigned(&mut self) -> Result<u64, String> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            value |= bits
                .checked_shl(shift)
                .filter(|v| v >> shift == bits)
                .ok_or("a number is too large")?;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number is too long".to_owned())
    }

    pub(in crate::correlate) fn signed(&mut self) -> Result<i64, String> {
        let value = self.unsigned()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// A number of elements, each of which takes at least one byte.
    pub(in crate::correlate) fn length(&mut self) -> Result<usize, String> {
        let length = usize::try_from(self.unsigned()?).ok();
        length
            .filter(|length| *length <= self.0.len())
            .ok_or_else(|| "it is cut short".to_owned())
    }

    pub(in crate::correlate) fn float(&mut self) -> Result<f64, String> {
        let mut bits = [0; 8];
        bits.copy_from_slice(self.bytes(8)?);
        Ok(f64::from_bits(u64::from_be_bytes(bits)))
    }

    pub(in crate::correlate) fn second(&mut self) -> Result<i64, String> {
        in_range(self.signed()?)
    }

    pub(in crate::correlate) fn times(&mut self) -> Result<VecDeque<i64>, String> {
        let mut previous = 0_i64;
        (0..self.length()?)
            .map(|_| {
                previous = in_range(previous.wrapping_add(self.signed()?))?;
                Ok(previous)
            })
            .collect()
    }

    pub(in crate::correlate) fn entries<V>(
        &mut self,
        value: impl Fn(&mut Self) -> Result<V, String>,
    ) -> Result<VecDeque<(i64, V)>, String> {
        let mut previous = 0_i64;
        (0..self.length()?)
            .map(|_| {
                previous = in_range(previous.wrapping_add(self.signed()?))?;
                Ok((previous, value(self)?))
            })
            .collect()
    }
}

/// Windows compute with seconds; a corrupted row must not make that overflow.
fn in_range(second: i64) -> Result<i64, String> {
    let range = Timestamp::MIN.as_second()..=Timestamp::MAX.as_second();
    range
        .contains(&second)
        .then_some(second)
        .ok_or_else(|| "a time is out of range".to_owned())
}
