//! The names of a LLaMA model's tensors: `blk.0.attn_q.weight` is `model.layers.0.self_attn.q_proj.weight`.

use super::LlamaSizes;

/// Names outside the layers: GGUF's, then Hugging Face's.
const OUTSIDE: [(&str, &str); 3] = [
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
];
/// Names within a layer, without `.weight`.
const INSIDE: [(&str, &str); 9] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// GGUF's name of a tensor of `model.safetensors`; `None` if LLaMA has no such tensor.
pub fn gguf_name(hugging_face: &str) -> Option<String> {
    if let Some((gguf, _)) = OUTSIDE.iter().find(|(_, name)| *name == hugging_face) {
        return Some((*gguf).to_owned());
    }
    let (layer, name) = hugging_face
        .strip_prefix("model.layers.")?
        .split_once('.')?;
    let (gguf, _) = INSIDE
        .iter()
        .find(|(_, inside)| name.strip_suffix(".weight") == Some(inside))?;
    Some(format!("blk.{}.{gguf}.weight", number(layer)?))
}

/// The name in `model.safetensors` of one of GGUF's tensors; `None` if LLaMA has no such tensor.
pub fn hugging_face_name(gguf: &str) -> Option<String> {
    if let Some((_, name)) = OUTSIDE.iter().find(|(outside, _)| *outside == gguf) {
        return Some((*name).to_owned());
    }
    let (layer, name) = gguf.strip_prefix("blk.")?.split_once('.')?;
    let (_, inside) = INSIDE
        .iter()
        .find(|(inside, _)| name.strip_suffix(".weight") == Some(inside))?;
    Some(format!("model.layers.{}.{inside}.weight", number(layer)?))
}

/// A number in decimal without leading zeros.
fn number(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// The order of a matrix's rows in GGUF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// As in `model.safetensors`.
    Same,
    /// Interleaved within each of this many heads: see [`interleaved_rows`](super::interleaved_rows).
    Heads(usize),
}

/// A tensor of a LLaMA model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LlamaTensor {
    /// Its name in GGUF files.
    pub gguf: String,
    /// Its name in `model.safetensors`.
    pub hugging_face: String,
    /// Its sizes, rows last.
    pub shape: Vec<u64>,
    /// The order of its rows.
    pub rows: Rows,
}

impl LlamaSizes {
    /// All tensors of the model, in the order of llama.cpp's own files. Tied models have no `output.weight`.
    pub fn tensors(&self) -> Vec<LlamaTensor> {
        let [vocab, d_model, d_ff] = [self.vocab_size, self.d_model, self.d_ff];
        let (q, kv) = (
            self.n_heads * self.head_dim,
            self.n_kv_heads * self.head_dim,
        );
        let tensor = |gguf: String, hugging_face: String, shape: &[usize], rows| LlamaTensor {
            gguf,
            hugging_face,
            shape: shape.iter().map(|size| *size as u64).collect(),
            rows,
        };
        let outside = |i: usize, shape: &[usize]| {
            let (gguf, name) = OUTSIDE[i];
            tensor(gguf.into(), name.into(), shape, Rows::Same)
        };
        let mut all = Vec::new();
        if !self.tie_embeddings {
            all.push(outside(2, &[vocab, d_model]));
        }
        all.push(outside(0, &[vocab, d_model]));
        for layer in 0..self.n_layers {
            for (gguf, inside) in INSIDE {
                let (shape, rows) = match gguf {
                    "attn_q" => (vec![q, d_model], Rows::Heads(self.n_heads)),
                    "attn_k" => (vec![kv, d_model], Rows::Heads(self.n_kv_heads)),
                    "attn_v" => (vec![kv, d_model], Rows::Same),
                    "attn_output" => (vec![d_model, q], Rows::Same),
                    "ffn_gate" | "ffn_up" => (vec![d_ff, d_model], Rows::Same),
                    "ffn_down" => (vec![d_model, d_ff], Rows::Same),
                    _ => (vec![d_model], Rows::Same),
                };
                let gguf = format!("blk.{layer}.{gguf}.weight");
                let name = format!("model.layers.{layer}.{inside}.weight");
                all.push(tensor(gguf, name, &shape, rows));
            }
        }
        all.push(outside(1, &[d_model]));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::sizes;
    use super::*;

    #[test]
    fn names_are_translated_in_both_directions() {
        for (gguf, name) in [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("output.weight", "lm_head.weight"),
            (
                "blk.12.attn_k.weight",
                "model.layers.12.self_attn.k_proj.weight",
            ),
            (
                "blk.0.ffn_norm.weight",
                "model.layers.0.post_attention_layernorm.weight",
            ),
        ] {
            assert_eq!(gguf_name(name).as_deref(), Some(gguf));
            assert_eq!(hugging_face_name(gguf).as_deref(), Some(name));
        }
        for other in [
            "blk.01.attn_k.weight",
            "blk.0.attn_k.bias",
            "blk.0.attn_k",
            "blk.x",
            "rope_freqs.weight",
        ] {
            assert_eq!(hugging_face_name(other), None, "{other}");
        }
        assert_eq!(gguf_name("model.layers.0.self_attn.q_proj.bias"), None);
    }

    #[test]
    fn every_tensor_has_a_shape() {
        let tied = sizes();
        let all = tied.tensors();
        assert_eq!(all.len(), 2 + 2 * 9);
        for tensor in &all {
            assert_eq!(gguf_name(&tensor.hugging_face).as_ref(), Some(&tensor.gguf));
        }
        let find = |name: &str| all.iter().find(|tensor| tensor.gguf == name).unwrap();
        assert_eq!(find("token_embd.weight").shape, [300, 32]);
        let k = find("blk.1.attn_k.weight");
        assert_eq!(
            (k.shape.as_slice(), k.rows),
            (&[16, 32][..], Rows::Heads(2))
        );
        let untied = LlamaSizes {
            tie_embeddings: false,
            ..tied
        };
        assert_eq!(untied.tensors()[0].gguf, "output.weight");
    }
}
