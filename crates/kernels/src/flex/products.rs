//! The instructions that multiply matrices.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

#[cfg(target_arch = "x86_64")]
use super::gemm::amx;

/// The instructions that multiply large matrices. Each includes those before it for the types that it does not
/// multiply itself.
///
/// The fastest that the processor has are in use, unless the environment variable `IIET_PRODUCTS` names others
/// or [`Products::select`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Products {
    /// Those of the gemm crate, for every processor.
    Portable,
    /// Multiply-adds of 512 bits for f32; bf16 is widened to f32.
    Avx512,
    /// VDPBF16PS for bf16, with registers of 512 bits.
    Avx512Bf16,
    /// AMX tiles for bf16.
    Amx,
}

impl Products {
    /// The environment variable that names the products to use.
    pub const VARIABLE: &str = "IIET_PRODUCTS";

    const ALL: [Self; 4] = [Self::Portable, Self::Avx512, Self::Avx512Bf16, Self::Amx];

    /// The name in `IIET_PRODUCTS`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512_bf16",
            Self::Amx => "amx",
        }
    }

    /// All that this processor and its operating system offer, from the most general on.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL
            .into_iter()
            .filter(|products| products.are_available())
    }

    #[cfg(target_arch = "x86_64")]
    fn are_available(self) -> bool {
        match self {
            Self::Portable => true,
            Self::Avx512 => is_x86_feature_detected!("avx512f"),
            Self::Avx512Bf16 => {
                is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16")
            }
            Self::Amx => amx::is_available(),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn are_available(self) -> bool {
        self == Self::Portable
    }

    /// The fastest on this processor. VDPBF16PS multiplies twice as fast as f32 on AMD's processors; Intel's
    /// issue it half as often as multiply-adds, so that it only adds the work of packing pairs.
    fn fastest() -> Self {
        let slow = |products| products == Self::Avx512Bf16 && !made_by_amd();
        let fastest = Self::available().filter(|products| !slow(*products)).last();
        fastest.unwrap_or(Self::Portable)
    }

    /// Those that `IIET_PRODUCTS` names, or the fastest.
    ///
    /// # Errors
    ///
    /// [`UnknownProducts`] if the variable names none, or none that this processor offers.
    pub fn from_environment() -> Result<Self, UnknownProducts> {
        match std::env::var_os(Self::VARIABLE) {
            None => Ok(Self::fastest()),
            Some(name) => name.to_string_lossy().parse(),
        }
    }

    /// Those in use.
    ///
    /// # Panics
    ///
    /// At the first use, if [`Self::from_environment`] fails.
    pub fn in_use() -> Self {
        match Self::ALL.get(usize::from(IN_USE.load(Ordering::Relaxed))) {
            Some(&products) => products,
            None => {
                let products = Self::from_environment().unwrap_or_else(|error| panic!("{error}"));
                products.select();
                products
            }
        }
    }

    /// Uses these products from now on, in all threads, to compare or test them.
    ///
    /// # Panics
    ///
    /// If they are not [available](Self::available).
    pub fn select(self) {
        assert!(
            self.are_available(),
            "{self}: not available on this processor"
        );
        IN_USE.store(self as u8, Ordering::Relaxed);
    }
}

/// An index into [`Products::ALL`]; before the first use none.
static IN_USE: AtomicU8 = AtomicU8::new(u8::MAX);

#[cfg(target_arch = "x86_64")]
fn made_by_amd() -> bool {
    let leaf = std::arch::x86_64::__cpuid(0);
    let name = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes);
    name.as_flattened() == b"AuthenticAMD"
}

#[cfg(not(target_arch = "x86_64"))]
fn made_by_amd() -> bool {
    false
}

impl fmt::Display for Products {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Products {
    type Err = UnknownProducts;

    fn from_str(name: &str) -> Result<Self, UnknownProducts> {
        let found = Self::available().find(|products| products.name() == name);
        found.ok_or_else(|| UnknownProducts {
            found: name.to_owned(),
        })
    }
}

/// A name that is not one of [`Products::available`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownProducts {
    found: String,
}

impl fmt::Display for UnknownProducts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let available: Vec<&str> = Products::available().map(Products::name).collect();
        let (variable, found) = (Products::VARIABLE, &self.found);
        let available = available.join(", ");
        write!(f, "{variable}={found}: this processor offers {available}")
    }
}

impl std::error::Error for UnknownProducts {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for products in Products::available() {
            assert_eq!(products.name().parse(), Ok(products));
        }
        let error = "sse2".parse::<Products>().unwrap_err().to_string();
        assert!(error.starts_with("IIET_PRODUCTS=sse2: this processor offers portable"));
    }

    #[test]
    fn the_fastest_are_available() {
        assert!(Products::fastest().are_available());
    }
}
