//! The Hugging Face hub, as the environment variables of its own Python library say.

use std::env;
use std::ffi::OsString;

use hf_hub::Cache;
use hf_hub::api::sync::{Api, ApiBuilder};

/// The folder of fetched files: `HF_HUB_CACHE`, or `hub` in `HF_HOME`, or `~/.cache/huggingface/hub`.
pub fn hub_cache() -> Cache {
    match variable("HF_HUB_CACHE") {
        Some(folder) => Cache::new(folder.into()),
        None => Cache::from_env(),
    }
}

/// The server of `HF_ENDPOINT` or the hub itself, with the token of `HF_TOKEN` or of the file that `hf auth login`
/// writes.
///
/// # Errors
///
/// A description of the problem; also where `HF_HUB_OFFLINE` forbids to ask.
pub fn hub_api() -> Result<Api, String> {
    if variable("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value)) {
        return Err("HF_HUB_OFFLINE is set".into());
    }
    let mut api = ApiBuilder::from_env().with_cache_dir(hub_cache().path().clone());
    if let Some(token) = variable("HF_TOKEN") {
        let token = token.into_string();
        let token = token.map_err(|token| format!("HF_TOKEN is not a token: {token:?}"))?;
        api = api.with_token(Some(token.trim().to_owned()));
    }
    api.build().map_err(|error| error.to_string())
}

fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// What huggingface_hub takes for yes.
fn is_true(value: &OsString) -> bool {
    let yes = ["1", "on", "yes", "true"];
    yes.iter().any(|yes| value.eq_ignore_ascii_case(yes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offline_is_what_the_hubs_library_takes_for_it() {
        for yes in ["1", "ON", "Yes", "true"] {
            assert!(is_true(&yes.into()), "{yes}");
        }
        for no in ["0", "off", "no", "false", "2"] {
            assert!(!is_true(&no.into()), "{no}");
        }
    }
}
