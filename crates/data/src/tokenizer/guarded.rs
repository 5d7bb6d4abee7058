//! Calls into the `tokenizers` crate with files that may come from anywhere.
//!
//! The crate unwraps what it finds in a `tokenizer.json` in many places (a character map that is
//! none, prefixes longer than their tokens), so a damaged file would end the process. Here such a
//! panic becomes the error that it is.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use super::failed;
use crate::error::DataError;

thread_local! {
    /// Whether this thread is inside [`guarded`], where a panic is no bug of ours to report.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs a call; a panic in it is an error with the panic's message.
pub(super) fn guarded<T>(
    call: impl FnOnce() -> Result<T, tokenizers::Error>,
) -> Result<T, DataError> {
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
    // What the call was changing is dropped with it, or is a cache that is valid at any time.
    let result = catch_unwind(AssertUnwindSafe(call));
    GUARDED.set(outer);
    match result {
        Ok(result) => result.map_err(failed),
        Err(panic) => {
            let message = match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
                (Some(message), _) => message.as_str(),
                (_, Some(message)) => message,
                _ => "no reason given",
            };
            Err(failed(format!("not a usable file: {message}").into()))
        }
    }
}
