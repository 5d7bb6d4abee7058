//! The instructions of flex's matrix products, of which a processor may offer several.

use super::{Backend, Chosen};

/// Refuses `IIET_PRODUCTS` if it names none that this processor offers.
pub(super) fn check(backend: Backend) -> anyhow::Result<()> {
    #[cfg(feature = "flex")]
    if backend == Backend::Flex {
        iiet_kernels::Products::from_environment()?;
    }
    let _ = backend;
    Ok(())
}

/// The name of those in use; `None` for a backend that leaves no choice.
pub(super) fn in_use(backend: Backend) -> Option<&'static str> {
    #[cfg(feature = "flex")]
    if backend == Backend::Flex {
        return Some(iiet_kernels::Products::in_use().name());
    }
    let _ = backend;
    None
}

/// Calls `f` with each products that the device can use selected, and with their name; or once with `None` on a
/// device that leaves no choice. Returns with those selected that were before.
pub(crate) fn for_all_products(
    chosen: &Chosen,
    mut f: impl FnMut(Option<&'static str>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    #[cfg(feature = "flex")]
    if chosen.products.is_some() {
        let before = iiet_kernels::Products::in_use();
        let result = iiet_kernels::Products::available().try_for_each(|products| {
            products.select();
            f(Some(products.name()))
        });
        before.select();
        return result;
    }
    let _ = chosen;
    f(None)
}
