//! Values as Python writes them: what the harness hashes is text of `json.dumps` and `str`.

use std::fmt::Write;

use serde_json::Number;

use crate::data::Json;

/// `json.dumps(value, indent=2, ensure_ascii=False)`.
pub fn dumps(value: &Json) -> String {
    let mut text = String::new();
    write(&mut text, value, 0);
    text
}

fn write(text: &mut String, value: &Json, depth: usize) {
    match value {
        Json::Number(number) => text.push_str(&of_number(number)),
        Json::List(list) if !list.is_empty() => {
            text.push('[');
            for (at, element) in list.iter().enumerate() {
                begin(text, at, depth + 1);
                write(text, element, depth + 1);
            }
            end(text, ']', depth);
        }
        Json::Object(entries) if !entries.is_empty() => {
            text.push('{');
            for (at, (key, value)) in entries.iter().enumerate() {
                begin(text, at, depth + 1);
                quote(text, key);
                text.push_str(": ");
                write(text, value, depth + 1);
            }
            end(text, '}', depth);
        }
        Json::Text(string) => quote(text, string),
        // What is empty or a constant is written alike in both languages.
        other => {
            let _ = write!(text, "{other}");
        }
    }
}

/// The line of an element.
fn begin(text: &mut String, at: usize, depth: usize) {
    text.push_str(if at > 0 { ",\n" } else { "\n" });
    indent(text, depth);
}

fn end(text: &mut String, bracket: char, depth: usize) {
    text.push('\n');
    indent(text, depth);
    text.push(bracket);
}

fn indent(text: &mut String, depth: usize) {
    text.extend(std::iter::repeat_n("  ", depth));
}

/// A string with the escapes of JSON, the same in both languages.
fn quote(text: &mut String, string: &str) {
    let _ = write!(text, "{}", serde_json::Value::from(string));
}

fn of_number(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => repr(float),
        _ => number.to_string(),
    }
}

/// `repr` of a float: the shortest digits that read back as it, with an exponent below 1e-4 and from
/// 1e16 on.
pub fn repr(float: f64) -> String {
    if !float.is_finite() {
        return match float {
            _ if float.is_nan() => "nan",
            _ if float > 0.0 => "inf",
            _ => "-inf",
        }
        .to_owned();
    }
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..16).contains(&exponent) && float != 0.0 => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => format!("{float:?}"),
    }
}

/// `str` of a truth value.
pub fn truth(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The expected values are CPython 3.11's.

    #[test]
    fn floats_are_written_as_in_python() {
        for (float, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-36.58234, "-36.58234"),
            (0.1, "0.1"),
            (1e-4, "0.0001"),
            (0.000012, "1.2e-05"),
            (-1e-10, "-1e-10"),
            (1e15, "1000000000000000.0"),
            (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
            (1e16, "1e+16"),
            (5e-324, "5e-324"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(repr(float), expected);
        }
    }

    #[test]
    fn objects_are_written_as_by_json_dumps() {
        let text = r#"{"b":"é\"\n\u0007\u007f","a":[1,2.0,1e-5,[],{}],"c":{"x":null,"y":false}}"#;
        let json: Json = serde_json::from_str(text).unwrap();
        let expected = "{\n  \"b\": \"é\\\"\\n\\u0007\u{7f}\",\n  \"a\": [\n    1,\n    2.0,\n    1e-05,\n    [],\n    {}\n  ],\n  \"c\": {\n    \"x\": null,\n    \"y\": false\n  }\n}";
        assert_eq!(dumps(&json), expected);
    }
}
