//! Compression of large payloads in records, histories and states.
//!
//! It is part of how a payload is encoded, and of nothing else: in memory a payload is its text, and replay compares
//! texts. LZ4, because it is quick, in pure Rust, and enough for JSON text that repeats itself.

use std::cell::Cell;

/// From this size on payloads are compressed unless [`compress_payloads_from`] says otherwise.
pub const COMPRESS_FROM_DEFAULT: usize = 16 << 10;

/// Smaller ones are never compressed: it would gain little and take time on the hot path.
pub(crate) const SMALLEST: usize = 1 << 10;

/// No text begins with this byte, as UTF-8 has no use for it.
const MARK: u8 = 0xff;
/// The only way of compressing so far.
const LZ4: u8 = 1;
/// Mark, way, and the length of the text in four bytes, little-endian.
const HEAD: usize = 6;

/// A block of LZ4 cannot stand for more than 255 times its size; whatever claims to is damaged.
const RATIO_MAX: usize = 255;

thread_local! {
    static FROM: Cell<usize> = const { Cell::new(COMPRESS_FROM_DEFAULT) };
}

/// From which size on, in bytes, payloads that this thread encodes are compressed; `usize::MAX` for never, and never
/// less than 1 KiB. What is read does not depend on it.
pub fn compress_payloads_from(bytes: usize) {
    FROM.set(bytes);
}

/// The compressed form, unless the text is too short for the trouble or does not get shorter by an eighth.
pub(crate) fn compress(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() < FROM.get() {
        return None;
    }
    let len = u32::try_from(text.len()).ok()?;
    let mut compressed = vec![0; HEAD + lz4_flex::block::get_maximum_output_size(text.len())];
    compressed[0] = MARK;
    compressed[1] = LZ4;
    compressed[2..HEAD].copy_from_slice(&len.to_le_bytes());
    let written = lz4_flex::block::compress_into(text, &mut compressed[HEAD..]).ok()?;
    compressed.truncate(HEAD + written);
    (compressed.len() < text.len() - text.len() / 8).then_some(compressed)
}

pub(crate) fn is_compressed(bytes: &[u8]) -> bool {
    bytes.first() == Some(&MARK)
}

/// The text that was compressed.
pub(crate) fn decompress(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let Some(([_, way, len @ ..], block)) = bytes.split_first_chunk::<HEAD>() else {
        return Err("a compressed payload is cut off".to_owned());
    };
    let len = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX);
    if *way != LZ4 {
        return Err(format!("a payload is compressed in the unknown way {way}"));
    }
    // Before memory is taken for it.
    if len > block.len().saturating_mul(RATIO_MAX) {
        return Err(format!("a compressed payload of {} bytes claims to stand for {len}", block.len()));
    }
    let text = lz4_flex::block::decompress(block, len)
        .map_err(|error| format!("a compressed payload is damaged: {error}"))?;
    if text.len() == len { Ok(text) } else { Err("a compressed payload is shorter than it says".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{decode_all, encode_to_vec};
    use crate::payload::Payload;

    fn large() -> Payload {
        Payload::encode(&"abcdefgh".repeat(10_000)).unwrap()
    }

    #[test]
    fn large_payloads_take_less_room_and_come_back() {
        let payload = large();
        let bytes = encode_to_vec(&payload);
        assert!(bytes.len() < payload.len() / 10);
        assert_eq!(decode_all::<Payload>(&bytes).unwrap(), payload);
        assert_eq!(
            serde_json::from_str::<Payload>(&serde_json::to_string(&payload).unwrap()).unwrap(),
            payload
        );
    }

    #[test]
    fn the_threshold_is_that_of_the_thread_and_reading_does_not_depend_on_it() {
        let payload = large();
        compress_payloads_from(usize::MAX);
        let plain = encode_to_vec(&payload);
        compress_payloads_from(0);
        let compressed = encode_to_vec(&payload);
        let small = Payload::encode(&"a".repeat(SMALLEST - 3)).unwrap();
        assert_eq!(encode_to_vec(&small).len(), small.len() + 3, "too small for the trouble");
        compress_payloads_from(COMPRESS_FROM_DEFAULT);
        assert!(plain.len() > payload.len() && compressed.len() < payload.len());
        assert_eq!(decode_all::<Payload>(&plain).unwrap(), payload);
        assert_eq!(decode_all::<Payload>(&compressed).unwrap(), payload);
    }

    #[test]
    fn what_does_not_get_shorter_stays_as_it_is() {
        let mut state = 1u64;
        let noise: String = (0..100_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                char::from_u32(0x20 + (state >> 33) as u32 % 0x5000).unwrap_or('x')
            })
            .collect();
        let payload = Payload::from_json(noise);
        assert_eq!(encode_to_vec(&payload).len(), payload.len() + 5);
        assert_eq!(decode_all::<Payload>(&encode_to_vec(&payload)).unwrap(), payload);
    }

    #[test]
    fn damaged_compressed_payloads_are_errors_and_take_no_memory() {
        let good = compress("abc".repeat(20_000).as_bytes()).unwrap();
        for cut in [1, 2, HEAD - 1, HEAD, HEAD + 1, good.len() - 1] {
            assert!(decompress(&good[..cut]).is_err(), "{cut}");
        }
        let mut huge = good.clone();
        huge[2..HEAD].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(decompress(&huge).unwrap_err().contains("claims"));
        let mut unknown = good.clone();
        unknown[1] = 9;
        assert!(decompress(&unknown).unwrap_err().contains("unknown way 9"));
        for at in HEAD..good.len() {
            let mut damaged = good.clone();
            damaged[at] ^= 0x55;
            let _ = decompress(&damaged);
        }
        let not_text = encode_to_vec(&compress(&[0xfe; 40_000]).unwrap());
        assert!(decode_all::<Payload>(&not_text).unwrap_err().problem.contains("not text"));
    }
}
