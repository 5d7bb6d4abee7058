//! Calls into crates that panic on some invalid files instead of returning an error.
//!
//! `tokenizers` unwraps values of a `tokenizer.json` in many places (an invalid character map,
//! prefixes longer than their tokens), and `parquet` indexes into damaged pages. Without this
//! module, an untrusted file could end the process; here such a panic becomes an error.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether this thread is inside [`guarded`], where a panic is not reported.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs a call; if it panics, the outer result is an error with the panic's message. Values that
/// the call was modifying must not be used after that.
///
/// # Errors
/// The message of the panic.
pub fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        // The hook prints before a panic can be caught; other panics are still reported.
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
            _ => "no message",
        };
        message.to_owned()
    })
}
