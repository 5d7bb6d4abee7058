//! Checks of the number of values in a page.
//!
//! A page with a delta encoding contains its number of values, as does its header, and the `parquet` crate
//! allocates memory for that number. Here the two must agree before a page is decoded
//! (<https://github.com/apache/parquet-format/blob/master/Encodings.md#delta-encoding-delta_binary_packed--5>).

use parquet::basic::Encoding;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};

/// Passes on the pages of another reader, or an error for an invalid page.
pub(super) struct CheckedPages {
    pub pages: Box<dyn PageReader>,
    /// Whether values have repetition levels, and definition levels.
    pub levels: [bool; 2],
}

impl CheckedPages {
    fn check(&self, page: &Page) -> Result<()> {
        let (buffer, values, encoding, skipped) = match page {
            Page::DataPage {
                buf,
                num_values,
                encoding,
                ..
            } => (buf, num_values, encoding, None),
            Page::DataPageV2 {
                buf,
                num_values,
                encoding,
                def_levels_byte_len,
                rep_levels_byte_len,
                ..
            } => {
                let levels = u64::from(*def_levels_byte_len) + u64::from(*rep_levels_byte_len);
                (buf, num_values, encoding, Some(levels as usize))
            }
            Page::DictionaryPage { .. } => return Ok(()),
        };
        let streams = match encoding {
            Encoding::DELTA_BINARY_PACKED | Encoding::DELTA_LENGTH_BYTE_ARRAY => 1,
            Encoding::DELTA_BYTE_ARRAY => 2,
            _ => return Ok(()),
        };
        let within = || {
            let mut rest = &buffer[..];
            match skipped {
                Some(levels) => rest = rest.get(levels..)?,
                None => {
                    for _ in self.levels.iter().filter(|has| **has) {
                        let (length, after) = rest.split_first_chunk()?;
                        rest = after.get(u32::from_le_bytes(*length) as usize..)?;
                    }
                }
            }
            // A page of nulls only may have no values.
            for _ in 0..streams {
                if rest.is_empty() {
                    return Some(());
                }
                rest = pass_delta(rest, u64::from(*values))?;
            }
            Some(())
        };
        within().ok_or_else(|| {
            ParquetError::General(format!(
                "a page of {values} values that declares another number"
            ))
        })
    }
}

/// Skips numbers in the delta encoding; `None` if they are more than `most`, or truncated.
fn pass_delta(mut bytes: &[u8], most: u64) -> Option<&[u8]> {
    let [block, parts, count] = [0; 3].map(|_| varint(&mut bytes));
    let (block, parts, count) = (block?, parts?, count?);
    varint(&mut bytes)?; // the first number
    if count > most || parts == 0 || block == 0 || block % parts != 0 || block > 1 << 20 {
        return None;
    }
    let per_part = block / parts;
    let mut left = count.saturating_sub(1);
    while left > 0 {
        varint(&mut bytes)?; // the minimum difference
        let (widths, rest) = bytes.split_at_checked(parts as usize)?;
        bytes = rest;
        for width in widths {
            // Miniblocks without values are absent.
            if left == 0 {
                break;
            }
            let packed = (per_part * u64::from(*width)).div_ceil(8) as usize;
            // The last miniblock may end after its last value.
            bytes = bytes.get(packed..).unwrap_or_default();
            left -= left.min(per_part);
        }
    }
    Some(bytes)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

impl Iterator for CheckedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Result<Page>> {
        self.get_next_page().transpose()
    }
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.pages.get_next_page()?;
        if let Some(page) = &page {
            self.check(page)?;
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formats_example_is_parsed() {
        // The format's example: 7, 5, 3, 1, 2, 3, 4, 5 in one block of 8 with one miniblock: the minimum
        // difference is -2, and the differences minus that are 0, 0, 0, 3, 3, 3, 3 in two bits each.
        let numbers = [8, 1, 8, 14, 3, 2, 0b1100_0000, 0b0011_1111, 0xaa];
        assert_eq!(pass_delta(&numbers, 8), Some(&[0xaa][..]));
        assert_eq!(pass_delta(&numbers, 7), None);
        // A single number has no blocks.
        assert_eq!(pass_delta(&[8, 1, 1, 14, 0xaa], 1), Some(&[0xaa][..]));
        assert_eq!(
            pass_delta(&[0x80, 1, 4, 0xff, 0xff, 0xff, 0xff, 0x0f, 0], 9),
            None
        );
        assert_eq!(pass_delta(&[8, 0, 8, 14], 8), None);
        assert_eq!(pass_delta(&[], 8), None);
    }
}
