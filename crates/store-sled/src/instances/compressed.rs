//! Long rows, compressed. What an instance was given and what it returned stand in its state and in its history, often also in
//! events of its activities; so a row with all of these is a few times as long as what it says, and each byte of it is copied
//! and written several times.
//!
//! flag u8 (no flag of a row), length of the row u32 big-endian, an LZ4 block.

use std::borrow::Cow;

use crate::database::VALUE_BYTES_MAX;

/// Shorter rows say little twice, and are many: it would take more time than it saves.
const FROM: usize = 1 << 10;

const COMPRESSED: u8 = 0x80;
const HEAD_BYTES: usize = 1 + 4;

/// Rows are at most this long before they are compressed; whatever claims to be longer is damaged.
pub(super) const ROW_BYTES_MAX: usize = 4 * VALUE_BYTES_MAX;

/// The row in as few bytes as it is worth.
pub(super) fn compress(row: Vec<u8>) -> Vec<u8> {
    if row.len() < FROM || row.len() > ROW_BYTES_MAX {
        return row;
    }
    let mut value = vec![0; HEAD_BYTES + lz4_flex::block::get_maximum_output_size(row.len())];
    value[0] = COMPRESSED;
    value[1..HEAD_BYTES].copy_from_slice(&(row.len() as u32).to_be_bytes());
    let written = lz4_flex::block::compress_into(&row, &mut value[HEAD_BYTES..]);
    // It gets shorter by an eighth, or is left alone.
    let Some(len) = written.ok().map(|written| HEAD_BYTES + written).filter(|len| *len < row.len() / 8 * 7)
    else {
        return row;
    };
    value.truncate(len);
    value.shrink_to_fit();
    value
}

/// The row that a value is, or stands for; none when it can't be one.
pub(super) fn decompress(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let Some((&[COMPRESSED, ref len @ ..], block)) = value.split_first_chunk::<HEAD_BYTES>() else {
        return Some(Cow::Borrowed(value));
    };
    // Before memory is taken for it.
    let len = u32::from_be_bytes(*len) as usize;
    let row = if len > ROW_BYTES_MAX { None } else { lz4_flex::block::decompress(block, len).ok() };
    row.filter(|row| row.len() == len).map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..len).map(|_| next() & 0x7f).collect()
    }

    #[test]
    fn rows_of_any_length_come_back_and_none_gets_longer() {
        for len in [0, 1, 4, 5, FROM - 1, FROM, 5000, ROW_BYTES_MAX, ROW_BYTES_MAX + 1] {
            for row in [noise(len), noise(len / 4).repeat(4), vec![7; len]] {
                let value = compress(row.clone());
                assert!(value.len() <= row.len());
                assert_eq!(decompress(&value).as_deref(), Some(&row[..]));
            }
        }
        assert!(compress(noise(1000).repeat(4)).len() < 1100);
    }

    #[test]
    fn what_is_damaged_is_no_row() {
        let value = compress(noise(1000).repeat(4));
        for end in HEAD_BYTES..value.len() {
            assert_eq!(decompress(&value[..end]), None);
        }
        let mut other_length = value.clone();
        other_length[4] ^= 1;
        assert_eq!(decompress(&other_length), None);
        let mut huge = value;
        huge[1] = 0xff;
        assert_eq!(decompress(&huge), None);
    }
}
