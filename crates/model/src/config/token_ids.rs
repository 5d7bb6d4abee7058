//! `eos_token_id`: absent, one id, or in newer checkpoints a list.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "eos_token_id has another type; allowed: a token id, or a list of them"
)]
enum TokenIds {
    One(u32),
    Several(Vec<u32>),
}

pub(crate) fn serialize<S: Serializer>(ids: &[u32], serializer: S) -> Result<S::Ok, S::Error> {
    match ids {
        [] => None,
        [only] => Some(TokenIds::One(*only)),
        several => Some(TokenIds::Several(several.to_vec())),
    }
    .serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<u32>, D::Error> {
    Ok(match Option::deserialize(deserializer)? {
        None => Vec::new(),
        Some(TokenIds::One(only)) => vec![only],
        Some(TokenIds::Several(several)) => several,
    })
}
