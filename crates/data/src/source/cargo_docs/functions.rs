//! The documented public functions of a source file.

use std::ops::Range;

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Block, Expr, ImplItem, Item, Lit, Meta, Signature, Stmt, TraitItem, Visibility,
};

use crate::guarded::guarded;

/// Files with brackets nested more deeply are not parsed, as each level takes space on the stack.
const MAX_DEPTH: usize = 256;

/// A public function with documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub name: String,
    /// From its visibility to its last brace, without attributes and indentation.
    pub code: String,
    /// The text of its documentation comment; `None` if it is included from a file.
    pub docs: Option<String>,
    /// Whether it has statements, and not only a macro in place of them.
    pub has_body: bool,
}

/// The public functions and methods of a file that have documentation, in order; `None` if the file cannot be
/// parsed. Methods of public traits count if they have a body. Tests do not.
pub(super) fn documented(text: &str) -> Option<Vec<Function>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // Places would be shifted by the first line.
    if has_shebang(text) || depth(text) > MAX_DEPTH {
        return None;
    }
    let found = guarded(|| {
        let file = syn::parse_file(text).ok()?;
        let mut found = Vec::new();
        visit(&file.items, text, &mut found);
        Some(found)
    });
    // The places of all files parsed on this thread would be kept.
    proc_macro2::extra::invalidate_current_thread_spans();
    found.ok().flatten()
}

/// Whether the parser leaves out the first line.
fn has_shebang(text: &str) -> bool {
    text.starts_with("#!") && !text[2..].trim_start().starts_with('[')
}

/// The deepest nesting of brackets, in comments and literals too.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn visit(items: &[Item], text: &str, found: &mut Vec<Function>) {
    for item in items {
        match item {
            Item::Fn(function) => {
                let start = public(&function.vis);
                found.extend(start.and_then(|start| {
                    read(&function.attrs, start, &function.sig, &function.block, text)
                }));
            }
            Item::Impl(block) if block.trait_.is_none() && !is_test(&block.attrs) => {
                for item in &block.items {
                    if let ImplItem::Fn(method) = item
                        && let Some(start) = public(&method.vis)
                    {
                        found.extend(read(&method.attrs, start, &method.sig, &method.block, text));
                    }
                }
            }
            Item::Trait(block) if public(&block.vis).is_some() && !is_test(&block.attrs) => {
                for item in &block.items {
                    if let TraitItem::Fn(method) = item
                        && let Some(body) = &method.default
                    {
                        let start = signature_start(&method.sig);
                        found.extend(read(&method.attrs, start, &method.sig, body, text));
                    }
                }
            }
            Item::Mod(module) if !is_test(&module.attrs) && module.ident != "tests" => {
                if let Some((_, items)) = &module.content {
                    visit(items, text, found);
                }
            }
            _ => {}
        }
    }
}

/// The place of `pub`; `None` if the item is not public or only within its crate.
fn public(visibility: &Visibility) -> Option<usize> {
    match visibility {
        Visibility::Public(token) => Some(token.span.byte_range().start),
        _ => None,
    }
}

/// The place of a function's first token, if it has no visibility.
fn signature_start(signature: &Signature) -> usize {
    let qualifiers = [
        signature.constness.as_ref().map(|token| token.span),
        signature.asyncness.as_ref().map(|token| token.span),
        signature.unsafety.as_ref().map(|token| token.span),
        signature.abi.as_ref().map(|abi| abi.extern_token.span),
        Some(signature.fn_token.span),
    ];
    let starts = qualifiers.into_iter().flatten();
    starts
        .map(|span| span.byte_range().start)
        .min()
        .expect("invariant: a function has the token `fn`")
}

/// The function, if it has documentation and is no test.
fn read(
    attributes: &[Attribute],
    start: usize,
    signature: &Signature,
    body: &Block,
    text: &str,
) -> Option<Function> {
    let docs = documentation(attributes)?;
    if is_test(attributes) {
        return None;
    }
    let end = body.brace_token.span.close().byte_range().end;
    Some(Function {
        name: signature.ident.to_string(),
        code: dedented(text, start..end)?,
        docs: match docs {
            Docs::Text(text) => Some(text),
            Docs::Included => None,
        },
        has_body: has_body(body),
    })
}

enum Docs {
    Text(String),
    /// With `include_str!`, or another macro.
    Included,
}

/// The documentation of an item, if it has any.
fn documentation(attributes: &[Attribute]) -> Option<Docs> {
    let mut lines = Vec::new();
    for attribute in attributes {
        let Meta::NameValue(meta) = &attribute.meta else {
            continue;
        };
        if !meta.path.is_ident("doc") {
            continue;
        }
        match &meta.value {
            Expr::Lit(literal) => {
                if let Lit::Str(text) = &literal.lit {
                    // Lines of a block comment may start with an asterisk.
                    let text = text.value();
                    let is_block = text.contains('\n');
                    // `lines` would drop an empty comment, which separates paragraphs.
                    lines.extend(text.split('\n').map(|line| match is_block {
                        true => without_asterisk(line.trim()).to_owned(),
                        false => line.to_owned(),
                    }));
                }
            }
            _ => return Some(Docs::Included),
        }
    }
    let text = lines.join("\n");
    (!text.trim().is_empty()).then_some(Docs::Text(text))
}

fn without_asterisk(line: &str) -> &str {
    match line.strip_prefix('*') {
        Some("") => "",
        Some(rest) => rest.strip_prefix(' ').unwrap_or(line),
        None => line,
    }
}

/// Whether an item is compiled for tests alone.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        // Also `#[tokio::test]`, with options or without.
        let last = attribute.path().segments.last();
        let is_marked = last.is_some_and(|name| name.ident == "test" || name.ident == "bench");
        let is_required = match &attribute.meta {
            Meta::List(list) => list.path.is_ident("cfg") && requires_test(list.tokens.clone()),
            Meta::Path(_) | Meta::NameValue(_) => false,
        };
        is_marked || is_required
    })
}

/// Whether a condition contains `test`, other than negated.
fn requires_test(condition: TokenStream) -> bool {
    let mut is_negated = false;
    condition.into_iter().any(|token| match token {
        TokenTree::Ident(name) => {
            is_negated = name == "not";
            name == "test"
        }
        TokenTree::Group(group) => !is_negated && requires_test(group.stream()),
        _ => false,
    })
}

/// Macros that stand for a body that is elsewhere or missing.
const PLACEHOLDERS: &[&str] = &[
    "panic",
    "todo",
    "unexpanded",
    "unimplemented",
    "unreachable",
];

/// Whether a body says what a function does.
fn has_body(body: &Block) -> bool {
    let name = |path: &syn::Path| {
        path.segments
            .last()
            .map(|segment| segment.ident.to_string())
    };
    let only = match &body.stmts[..] {
        [] => return false,
        [Stmt::Macro(statement)] => name(&statement.mac.path),
        [Stmt::Expr(Expr::Macro(expression), _)] => name(&expression.mac.path),
        _ => return true,
    };
    only.is_none_or(|name| !PLACEHOLDERS.contains(&name.as_str()))
}

/// The code of a range without the indentation of its first line.
fn dedented(text: &str, range: Range<usize>) -> Option<String> {
    let code = text.get(range.clone())?;
    let before = text[..range.start].rsplit('\n').next().unwrap_or_default();
    let indentation = before.len() - before.trim_start().len();
    let mut dedented = String::with_capacity(code.len());
    for (at, line) in code.lines().enumerate() {
        let blank = line.len() - line.trim_start().len();
        let line = match at {
            0 => line,
            // Only spaces and tabs, which are one byte each, are left out.
            _ => line.get(indentation.min(blank)..).unwrap_or(line),
        };
        if at > 0 {
            dedented.push('\n');
        }
        dedented.push_str(line.trim_end());
    }
    Some(dedented)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"//! A crate.
use std::fmt;

/// Adds two numbers.
///
/// # Examples
#[inline]
#[must_use]
pub const fn add(a: i32, b: i32) -> i32 {
    // Ümläute before the end.
    a + b
}

/// Not public.
fn hidden() { work() }
/// Public within the crate.
pub(crate) fn inner() { work() }
pub fn undocumented() { work() }
#[doc = include_str!("a.md")]
pub fn included() { work() }
/// Does nothing.
pub fn empty() {}
/// Is expanded elsewhere.
pub fn later() { unexpanded!() }

impl<T> Stack<T> {
    /** Removes the last element,
     * if there is one. */
    #[cfg(not(test))]
    pub fn pop(&mut self) -> Option<T> {
        let text = "
  kept";

        self.0.pop()
    }
    /// For tests.
    #[cfg(all(test, feature = "x"))]
    pub fn check(&self) { work() }
}

impl fmt::Display for Stack<u8> {
    /// Of another trait.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result { Ok(()) }
}

pub trait Shape {
    /// No body.
    fn area(&self) -> f64;
    /// Twice the area.
    unsafe fn twice(&self) -> f64 {
        2.0 * self.area()
    }
}

#[cfg(test)]
mod checks {
    /// In a test module.
    pub fn helper() { work() }
}
pub mod nested {
    /// Is nested.
    pub fn deep() { work() }
    /// A test.
    #[tokio::test]
    pub fn run() { work() }
}
"#;

    #[test]
    fn public_functions_are_found_with_their_code_and_documentation() {
        for text in [
            FILE.to_owned(),
            format!("\u{feff}{}", FILE.replace('\n', "\r\n")),
        ] {
            let found = documented(&text).unwrap();
            let names: Vec<&str> = found
                .iter()
                .map(|function| function.name.as_str())
                .collect();
            assert_eq!(
                names,
                ["add", "included", "empty", "later", "pop", "twice", "deep"]
            );
            let add = "pub const fn add(a: i32, b: i32) -> i32 {\n    // Ümläute before the end.\n    a + b\n}";
            assert_eq!(found[0].code, add);
            let docs = found[0].docs.as_deref().unwrap();
            assert_eq!(docs, " Adds two numbers.\n\n # Examples");
            assert_eq!(found[1].docs, None);
            let has_body = found.iter().map(|function| function.has_body);
            let expected = [true, true, false, false, true, true, true];
            assert!(has_body.eq(expected));
            let pop = "pub fn pop(&mut self) -> Option<T> {\n    let text = \"\nkept\";\n\n    self.0.pop()\n}";
            assert_eq!(found[4].code, pop);
            let docs = found[4].docs.as_deref().unwrap();
            assert_eq!(docs, "Removes the last element,\nif there is one.");
            assert!(
                found[5].code.starts_with("unsafe fn twice"),
                "{}",
                found[5].code
            );
        }
    }

    #[test]
    fn files_that_cannot_be_parsed_are_none() {
        let deep = format!("fn f() {{ {}{} }}", "(".repeat(300), ")".repeat(300));
        for text in ["pub fn (", "{{{", "#!/bin/sh\nfn f() {}", &deep] {
            assert_eq!(documented(text), None, "{text}");
        }
        assert_eq!(documented(""), Some(Vec::new()));
        assert_eq!(documented("#![no_std]\n"), Some(Vec::new()));
    }
}
