//! WikiText-2: whole articles (Merity et al., arXiv:1609.07843), as text again before they are
//! scored; words and bytes are counted in the tokenised original.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

use crate::data::Split::{Test, Train, Validation};
use crate::data::{Document, HubData};
use crate::error::EvalError;
use crate::task::{Form, Source, Task};

pub(super) const TASK: Task = Task {
    name: "wikitext",
    version: 2.0,
    source: Source::Hub(HubData {
        repository: "EleutherAI/wikitext_document_level",
        subset: "wikitext-2-raw-v1",
        splits: &[Train, Validation, Test],
        adds: None,
    }),
    form: Form::Rolling { scored, original },
};

fn original(document: &Document) -> Result<String, EvalError> {
    Ok(document.text("page")?.to_owned())
}

fn scored(document: &Document) -> Result<String, EvalError> {
    Ok(detokenized(document.text("page")?))
}

/// A step of the way back to text.
enum Step {
    Literal(&'static str, &'static str),
    /// White space within a pair of marks: the pattern, with Python's white space for `SPACE`.
    Within(&'static str, &'static str),
}

/// The harness's steps in its order. The third is what its pattern means, slashes included, though
/// it hardly ever finds anything.
const STEPS: &[Step] = &[
    Step::Literal("s '", "s'"),
    Step::Within("/' [0-9]/", "/'[0-9]/"),
    Step::Literal(" @-@ ", "-"),
    Step::Literal(" @,@ ", ","),
    Step::Literal(" @.@ ", "."),
    Step::Literal(" : ", ": "),
    Step::Literal(" ; ", "; "),
    Step::Literal(" . ", ". "),
    Step::Literal(" ! ", "! "),
    Step::Literal(" ? ", "? "),
    Step::Literal(" , ", ", "),
    Step::Within(r"\(SPACE*([^\)]*?)SPACE*\)", "($1)"),
    Step::Within(r"\[SPACE*([^\]]*?)SPACE*\]", "[$1]"),
    Step::Within(r"\{SPACE*([^}]*?)SPACE*\}", "{$1}"),
    Step::Within("\"SPACE*([^\"]*?)SPACE*\"", "\"$1\""),
    Step::Within("'SPACE*([^']*?)SPACE*'", "'$1'"),
    Step::Literal("= = = =", "===="),
    Step::Literal("= = =", "==="),
    Step::Literal("= =", "=="),
    Step::Literal(" \u{b0} ", "\u{b0}"),
    Step::Literal(" \n", "\n"),
    Step::Literal("\n ", "\n"),
    Step::Literal(" N ", " 1 "),
    Step::Literal(" 's", "'s"),
];

fn detokenized(page: &str) -> String {
    static PATTERNS: LazyLock<Vec<Option<Regex>>> = LazyLock::new(|| {
        let pattern = |step: &Step| match step {
            Step::Literal(..) => None,
            Step::Within(pattern, _) => {
                let pattern = pattern.replace("SPACE", r"[\s\x1c-\x1f]");
                Some(Regex::new(&pattern).expect("invariant: valid patterns"))
            }
        };
        STEPS.iter().map(pattern).collect()
    });
    let mut text = Cow::Borrowed(page);
    for (step, pattern) in STEPS.iter().zip(PATTERNS.iter()) {
        text = match (step, pattern) {
            (Step::Within(_, with), Some(pattern)) => {
                pattern.replace_all(&text, *with).into_owned().into()
            }
            (Step::Literal(from, to) | Step::Within(from, to), _) => text.replace(from, to).into(),
        };
    }
    text.into_owned()
}
