//! Printing that neither panics nor ends a command's work.
//!
//! `println!` panics when its stream cannot be written. Here
//!
//! - `outln!` and `out!` write to standard output. If the reader has closed the pipe, further output is
//!   dropped, and the command completes its work and exits with 0. Every other failure, such as a full disk,
//!   is an error.
//! - `errln!` writes to standard error. Messages that cannot be written are dropped.
//!
//! Commands write their files before they print, and a command that only prints checks [`is_closed`] to end
//! early.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

/// Set when the reader of standard output is gone.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// Writes a line to standard output; `anyhow::Result<()>`.
macro_rules! outln {
    ($($text:tt)*) => {
        $crate::print::to_stdout(format_args!("{}\n", format_args!($($text)*)))
    };
}

/// Writes to standard output without ending the line; `anyhow::Result<()>`.
macro_rules! out {
    ($($text:tt)*) => {
        $crate::print::to_stdout(format_args!($($text)*))
    };
}

/// Writes a line to standard error if possible.
macro_rules! errln {
    ($($text:tt)*) => {
        $crate::print::to_stderr(format_args!($($text)*))
    };
}

pub(crate) use {errln, out, outln};

/// Whether the reader of standard output is gone, so that nothing more is printed.
pub(crate) fn is_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

/// Used by `out!` and `outln!`.
pub(crate) fn to_stdout(text: fmt::Arguments<'_>) -> anyhow::Result<()> {
    if is_closed() {
        return Ok(());
    }
    let open = write(&mut io::stdout().lock(), text).context("writing standard output")?;
    CLOSED.store(!open, Ordering::Relaxed);
    Ok(())
}

/// Used by `errln!`.
pub(crate) fn to_stderr(text: fmt::Arguments<'_>) {
    // There is no way to report that a message cannot be written.
    let _ = write(&mut io::stderr().lock(), format_args!("{text}\n"));
}

/// Whether there still is a reader.
fn write(to: &mut impl Write, text: fmt::Arguments<'_>) -> io::Result<bool> {
    // One write for the whole text, to avoid partial tables.
    match to
        .write_all(text.to_string().as_bytes())
        .and_then(|()| to.flush())
    {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails every write in the same way.
    struct Failing(ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_broken_pipe_is_not_an_error() {
        let mut bytes = Vec::new();
        assert!(write(&mut bytes, format_args!("{} {}\n", 1, 2)).unwrap());
        assert_eq!(bytes, b"1 2\n");
        assert!(!write(&mut Failing(ErrorKind::BrokenPipe), format_args!("x")).unwrap());
        let full = write(&mut Failing(ErrorKind::StorageFull), format_args!("x"));
        assert_eq!(full.unwrap_err().kind(), ErrorKind::StorageFull);
    }
}
