//! Calls into crates that panic on some files where they should return an error.
//!
//! `tokenizers` unwraps what it finds in a `tokenizer.json` in many places (a character map that is
//! none, prefixes longer than their tokens), and `parquet` indexes into damaged pages. A file that
//! comes from anywhere would end the process; here such a panic becomes the error that it is.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether this thread is inside [`guarded`], where a panic is no bug of ours to report.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs a call; a panic in it is the outer error, with the panic's message. What the call was
/// changing must not be used after that.
///
/// # Errors
/// The message of a panic.
pub fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        // The hook prints before anything can be caught; all other panics keep theirs.
        set_hook(Box::new(move |panic| {
            if !GUARDED.get() {
                before(panic);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    GUARDED.set(outer);
    result.map_err(|panic| {
        let message = match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
            (Some(message), _) => message.as_str(),
            (_, Some(message)) => message,
            _ => "no reason given",
        };
        message.to_owned()
    })
}
