//! Hides lengths: ISO/IEC 7816-4 padding up to a Padmé step (Nikitin et al.,
//! "Reducing Metadata Leakage from Encrypted Files and Communication with
//! PURBs", PETS 2019), so that at most 12 % is added and only O(log log n)
//! bits of a length leak.

/// Smallest padded length, in bytes.
const FLOOR: usize = 256;
/// Ends the content; zeros follow.
const END: u8 = 0x80;

/// Appends the end mark and zeros up to the next step.
pub fn pad(content: &mut Vec<u8>) {
    content.push(END);
    content.resize(step(content.len()), 0);
}

/// The content without its padding, or `None` when there is no end mark.
pub fn unpad(padded: &[u8]) -> Option<&[u8]> {
    let end = padded.iter().rposition(|&byte| byte != 0)?;
    match padded.split_at_checked(end)? {
        (content, [END, ..]) => Some(content),
        _ => None,
    }
}

/// The smallest Padmé length that holds `length` bytes.
fn step(length: usize) -> usize {
    if length <= FLOOR {
        return FLOOR;
    }
    let exponent = length.ilog2();
    let mantissa_bits = exponent.ilog2() + 1;
    let mask = (1usize << (exponent - mantissa_bits)) - 1;
    (length + mask) & !mask
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn content_comes_back(content: Vec<u8>) {
            let mut padded = content.clone();
            pad(&mut padded);
            prop_assert_eq!(unpad(&padded).unwrap(), &content[..]);
        }

        #[test]
        fn padding_is_bounded(length in 256usize..1_000_000) {
            let padded = step(length);
            prop_assert!(padded >= length);
            prop_assert!(padded - length <= length / 8);
        }
    }

    #[test]
    fn short_contents_look_alike() {
        let lengths = [0, 1, 100, 255].map(|n| {
            let mut content = vec![1; n];
            pad(&mut content);
            content.len()
        });
        assert_eq!(lengths, [256; 4]);
    }

    #[test]
    fn missing_end_mark_is_noticed() {
        assert_eq!(unpad(&[0; 256]), None);
        assert_eq!(unpad(&[]), None);
        assert_eq!(unpad(&[1, 2, 3]), None);
    }
}
