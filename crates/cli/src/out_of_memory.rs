//! An error message and exit code 1 when the system refuses memory.
//!
//! Commands estimate their memory and check it first. If the system still refuses memory, as under `ulimit
//! -v` or in a small container, the standard library aborts with a number of bytes; its hook for a message is
//! not stable. So this binary's allocator checks the results of the system's, whose heap has huge pages.

use std::alloc::{GlobalAlloc, Layout};
use std::io::{Cursor, Write};
use std::sync::OnceLock;

use iiet_train::HugePages;

/// What the command does, and how a user can reduce its memory.
static WORK: OnceLock<(&str, &str)> = OnceLock::new();

/// Sets the description of the work for the message, as in "training", and what to lower.
pub(crate) fn set_work(work: &'static str, remedy: &'static str) {
    // A process runs one command.
    let _ = WORK.set((work, remedy));
}

/// The system's allocator, which ends the process with a message if memory is exhausted.
pub(crate) struct Reporting;

// SAFETY: every call is passed to the other allocator unchanged, and its result is returned unless it is
// null.
unsafe impl GlobalAlloc for Reporting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller upholds GlobalAlloc's contract, as in the other functions.
        checked(unsafe { HugePages.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        checked(unsafe { HugePages.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        checked(unsafe { HugePages.realloc(old, layout, size) }, size)
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { HugePages.dealloc(old, layout) }
    }
}

fn checked(memory: *mut u8, bytes: usize) -> *mut u8 {
    if memory.is_null() {
        refused(bytes);
    }
    memory
}

/// Writes the message without allocating, and ends the process without destructors, which could allocate.
/// Files that are being written keep their temporary names.
#[cold]
fn refused(bytes: usize) -> ! {
    let mut message = [0; 512];
    let length = message_into(&mut message, bytes);
    // There is no way to report that a message cannot be written.
    let _ = std::io::stderr().write_all(&message[..length]);
    // SAFETY: it takes a number and does not return.
    unsafe { libc::_exit(1) }
}

fn message_into(message: &mut [u8], bytes: usize) -> usize {
    let (work, remedy) = WORK.get().copied().unwrap_or(("starting", "give it more"));
    let mut text = Cursor::new(message);
    // A truncated message is better than none.
    let _ = writeln!(
        text,
        "error: out of memory while {work}: the system refused {bytes} bytes (a limit such as \
         ulimit -v or a container's counts too); {remedy}"
    );
    text.position() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_contains_the_work_and_the_remedy() {
        let mut message = [0; 512];
        let length = message_into(&mut message, 4096);
        let text = std::str::from_utf8(&message[..length]).unwrap();
        assert!(text.starts_with("error: out of memory while "), "{text}");
        assert!(text.contains("refused 4096 bytes"), "{text}");
        assert!(text.ends_with('\n'), "{text}");
        // A buffer that is too small is filled and not overrun.
        assert_eq!(message_into(&mut [0; 16], 4096), 16);
    }
}
