//! An allocator whose heap has huge pages.

use std::alloc::{GlobalAlloc, Layout, System};

/// The system's allocator. On Linux with glibc the heap is asked to consist of pages of 2 MiB, which the system
/// may grant.
///
/// Weights are read from memory once for each token: with pages of 4 KiB, decoding spends much of its time on the
/// translation of addresses. Together with [`keep_freed_memory`](crate::keep_freed_memory), after which
/// all memory comes from the heap:
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: iiet_train::HugePages = iiet_train::HugePages;
///
/// iiet_train::keep_freed_memory();
/// let weights = vec![0.0f32; 1 << 20];
/// # assert_eq!(weights.len(), 1 << 20);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct HugePages;

// SAFETY: every call is passed to the system's allocator unchanged, and its result is returned. What is told to
// the system about pages does not change their contents.
unsafe impl GlobalAlloc for HugePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller upholds GlobalAlloc's contract, as in the other functions.
        advised(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        advised(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        advised(unsafe { System.realloc(old, layout, size) }, size)
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(old, layout) }
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn advised(memory: *mut u8, _: usize) -> *mut u8 {
    memory
}

/// Asks for huge pages where the heap has grown since the last time, if this block is large.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn advised(memory: *mut u8, bytes: usize) -> *mut u8 {
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Blocks from which on it is worth a look.
    const LARGE: usize = 1 << 20;
    const PAGE: usize = 2 << 20;
    /// Where the advised part of the heap ends.
    static ADVISED: AtomicUsize = AtomicUsize::new(0);

    if bytes < LARGE || memory.is_null() {
        return memory;
    }
    // SAFETY: sbrk(0) returns the end of the heap and changes nothing.
    let end = unsafe { libc::sbrk(0) }.addr() / PAGE * PAGE;
    let block = memory.addr();
    let advised = ADVISED.load(Ordering::Relaxed);
    // Other mappings are above the heap.
    if end <= advised || block >= end {
        return memory;
    }
    let from = match advised {
        0 => block.next_multiple_of(PAGE),
        advised => advised,
    };
    if from < end
        && ADVISED
            .compare_exchange(advised, end, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    {
        let start = std::ptr::without_provenance_mut(from);
        // SAFETY: this range of the heap is mapped, and the advice changes no contents. That it may be refused does
        // not matter.
        unsafe { libc::madvise(start, end - from, libc::MADV_HUGEPAGE) };
    }
    memory
}
