//! YAML as PyYAML's `safe_load` reads it, into JSON.
//!
//! The syntax is `granit_parser`'s business; this file turns its events into values by PyYAML's
//! rules, which are YAML 1.1's: `no` is a boolean, `1e3` is text, of two equal keys the last wins,
//! `<<` merges. A project id such as `12345678901234567890123456789012` or `1234e5…` must stay what
//! it is, so numbers become the text that Python's `str` makes of them: openstacksdk does the same
//! a step later (`_util.normalize_keys`).

use std::collections::HashMap;

use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput, Tag};
use serde_json::{Map, Value};

/// Bounds what anchors can blow a small file up to.
const MAX_NODES: usize = 100_000;
const MAX_DEPTH: usize = 200;

/// Why a text is no YAML, and where (both counted from 1). Quotes nothing of the text: it may hold secrets.
#[derive(Debug, PartialEq)]
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) what: String,
}

impl From<ScanError> for Fault {
    fn from(error: ScanError) -> Self {
        Self::at(*error.marker(), &error.info())
    }
}

impl Fault {
    fn at(mark: Marker, what: &str) -> Self {
        Self { line: mark.line(), column: mark.col() + 1, what: what.to_owned() }
    }
}

/// The one document of `text`; `Null` when there is none.
pub(super) fn parse(text: &str) -> Result<Value, Fault> {
    let options = granit_parser::options! { block_scalar_eof_without_line_feed: true };
    let parser = Parser::new_from_str_with_options(text, options);
    let mut composer = Composer { parser, anchors: HashMap::new(), nodes: 0 };
    let mut document = None;
    loop {
        let (event, mark) = composer.next()?;
        match event {
            Event::StreamEnd => return Ok(document.unwrap_or(Value::Null)),
            Event::DocumentStart(..) if document.is_some() => {
                return Err(Fault::at(mark, "a second document starts"));
            }
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
            event => document = Some(composer.node(event, mark, 0)?),
        }
    }
}

struct Composer<'t> {
    parser: Parser<'t, StrInput<'t>>,
    anchors: HashMap<usize, Value>,
    nodes: usize,
}

impl<'t> Composer<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Marker), Fault> {
        loop {
            match self.parser.next_event() {
                None => return Ok((Event::StreamEnd, Marker::default())),
                Some(Err(error)) => return Err(error.into()),
                Some(Ok((event, span))) if event.is_node() || is_structure(&event) => {
                    return Ok((event, span.start));
                }
                Some(Ok(_)) => {}
            }
        }
    }

    fn node(&mut self, event: Event<'t>, mark: Marker, depth: usize) -> Result<Value, Fault> {
        self.count(1, depth, mark)?;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => (scalar(&text, style, tag.as_deref(), mark)?, anchor),
            Event::SequenceStart(_, anchor, tag) => {
                accept_tag(tag.as_deref(), "seq", mark)?;
                (self.sequence(depth)?, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                accept_tag(tag.as_deref(), "map", mark)?;
                (self.mapping(depth)?, anchor)
            }
            Event::Alias(id) => {
                let value =
                    self.anchors.get(&id).ok_or_else(|| Fault::at(mark, "an alias within its own anchor"))?;
                let (value, (nodes, levels)) = (value.clone(), extent(value));
                self.count(nodes, depth + levels, mark)?;
                return Ok(value);
            }
            _ => return Err(Fault::at(mark, "a value is missing")),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn count(&mut self, nodes: usize, depth: usize, mark: Marker) -> Result<(), Fault> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES || depth > MAX_DEPTH {
            return Err(Fault::at(mark, "too large or too deeply nested"));
        }
        Ok(())
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, Fault> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::Array(items)),
                (event, mark) => items.push(self.node(event, mark, depth + 1)?),
            }
        }
    }

    /// Merged entries come first and lose to the mapping's own, wherever `<<` stands.
    fn mapping(&mut self, depth: usize) -> Result<Value, Fault> {
        let (mut merged, mut own) = (Map::new(), Map::new());
        loop {
            let (event, mark) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                merged.extend(own);
                return Ok(Value::Object(merged));
            }
            let is_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let key = match event {
                // openstacksdk breaks on keys that are no text; read as text they harm nobody.
                Event::Scalar(text, _, anchor, _) => {
                    if anchor > 0 {
                        self.anchors.insert(anchor, implicit(&text));
                    }
                    text.into_owned()
                }
                event => match self.node(event, mark, depth + 1)? {
                    Value::String(text) => text,
                    _ => return Err(Fault::at(mark, "a key is no text")),
                },
            };
            let (event, mark) = self.next()?;
            let value = self.node(event, mark, depth + 1)?;
            if is_merge {
                merge(value, &mut merged).map_err(|what| Fault::at(mark, what))?;
            } else {
                own.insert(key, value);
            }
        }
    }
}

fn is_structure(event: &Event<'_>) -> bool {
    use Event::{DocumentEnd, DocumentStart, MappingEnd, SequenceEnd, StreamEnd, StreamStart};
    matches!(event, StreamStart | StreamEnd | DocumentStart(..) | DocumentEnd | SequenceEnd | MappingEnd)
}

/// `<<: *a` and `<<: [*a, *b]`, where the first in the list wins.
fn merge(value: Value, into: &mut Map<String, Value>) -> Result<(), &'static str> {
    match value {
        Value::Object(map) => into.extend(map),
        Value::Array(items) => items.into_iter().rev().try_for_each(|item| match item {
            Value::Object(map) => {
                into.extend(map);
                Ok(())
            }
            _ => Err("`<<` takes mappings"),
        })?,
        _ => return Err("`<<` takes a mapping or a list of mappings"),
    }
    Ok(())
}

/// Nodes and levels of a value.
fn extent(value: &Value) -> (usize, usize) {
    let children: &mut dyn Iterator<Item = &Value> = match value {
        Value::Array(items) => &mut items.iter(),
        Value::Object(map) => &mut map.values(),
        _ => return (1, 1),
    };
    children.map(extent).fold((1, 1), |(nodes, levels), (n, l)| (nodes + n, levels.max(l + 1)))
}

fn accept_tag(tag: Option<&Tag>, kind: &str, mark: Marker) -> Result<(), Fault> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema_tag(kind) && !says_nothing(tag) => {
            Err(Fault::at(mark, "an unknown tag"))
        }
        _ => Ok(()),
    }
}

/// The tag `!`, which PyYAML passes over.
fn says_nothing(tag: &Tag) -> bool {
    tag.handle().is_empty() && tag.suffix() == "!"
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, mark: Marker) -> Result<Value, Fault> {
    match tag.filter(|tag| !says_nothing(tag)).map(Tag::core_suffix) {
        None if style == ScalarStyle::Plain => Ok(implicit(text)),
        None | Some(Some("str")) => Ok(text.into()),
        Some(Some("null" | "bool" | "int" | "float")) => Ok(implicit(text)),
        Some(_) => Err(Fault::at(mark, "an unknown tag")),
    }
}

/// PyYAML's implicit resolver. Dates stay text: `str` gives them back as they were.
fn implicit(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Value::Bool(false),
        _ => int(text).or_else(|| float(text)).unwrap_or_else(|| text.to_owned()).into(),
    }
}

/// `str(int)` of what YAML 1.1 takes for an integer: also octal, binary and base 60.
fn int(text: &str) -> Option<String> {
    let sign = if text.starts_with('-') { "-" } else { "" };
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit()) || unsigned.contains(['-', '+']) {
        return None;
    }
    let digits = unsigned.replace('_', "");
    let number = |digits: &str, radix| u128::from_str_radix(digits, radix).ok().map(|n| n.to_string());
    let magnitude = if let Some(digits) = digits.strip_prefix("0b") {
        number(digits, 2)?
    } else if let Some(digits) = digits.strip_prefix("0x") {
        number(digits, 16)?
    } else if digits.len() > 1 && digits.starts_with('0') {
        number(&digits, 8)?
    } else if digits.bytes().all(|b| b.is_ascii_digit()) {
        digits // of any length
    } else {
        let mut parts = digits.split(':');
        let first: u128 = parts.next()?.parse().ok()?;
        let sixty = |sum: u128, part: &str| match part.parse() {
            Ok(n @ 0..60) if part.len() <= 2 => sum.checked_mul(60)?.checked_add(n),
            _ => None,
        };
        parts.try_fold(first, sixty)?.to_string()
    };
    Some(if magnitude == "0" { magnitude } else { format!("{sign}{magnitude}") })
}

/// `str(float)` of what YAML 1.1 takes for one: with a point, and with a sign in the exponent.
fn float(text: &str) -> Option<String> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.')?;
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    let exponent_fits = exponent.is_none_or(|e| {
        e.strip_prefix(['-', '+']).is_some_and(|e| !e.is_empty() && e.bytes().all(|b| b.is_ascii_digit()))
    });
    let starts = if whole.is_empty() { fraction } else { whole };
    let signed_fraction = whole.is_empty() && unsigned.len() < text.len();
    if !digits(whole)
        || !digits(fraction)
        || !exponent_fits
        || signed_fraction
        || !starts.starts_with(|c: char| c.is_ascii_digit())
    {
        return None;
    }
    text.replace('_', "").parse().ok().map(|number: f64| format!("{number:?}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_are_what_pyyaml_makes_of_them() {
        // Recorded with `str(yaml.safe_load(x))` of PyYAML 6.0.3.
        for (text, expected) in [
            ("1e3", "1e3"),
            ("1.5e10", "1.5e10"),
            ("1.5e+3", "1500.0"),
            ("1.10", "1.1"),
            ("1.", "1.0"),
            (".5", "0.5"),
            ("-.5", "-.5"),
            ("1.2.3", "1.2.3"),
            ("007", "7"),
            ("010", "8"),
            ("08", "08"),
            ("0x1F", "31"),
            ("0b101", "5"),
            ("0o17", "0o17"),
            ("1_000", "1000"),
            ("_1", "_1"),
            ("+7", "7"),
            ("-0", "0"),
            ("12:30", "750"),
            ("-12:30:00", "-45000"),
            ("12:61", "12:61"),
            (
                "12345678901234567890123456789012345678901234567890",
                "12345678901234567890123456789012345678901234567890",
            ),
            ("1234567890123456789012345678901e", "1234567890123456789012345678901e"),
            ("12345678901e34567890123456789012", "12345678901e34567890123456789012"),
            ("2024-01-31", "2024-01-31"),
            ("y", "y"),
            ("N", "N"),
            ("'no'", "no"),
            ("\"1\"", "1"),
            ("!!str no", "no"),
            ("! 010", "8"),
            ("http://x:1/", "http://x:1/"),
        ] {
            assert_eq!(parse(text), Ok(json!(expected)), "{text}");
        }
        for (text, expected) in
            [("no", json!(false)), ("On", json!(true)), ("oN", json!("oN")), ("~", json!(null))]
        {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn merges_and_duplicates_end_as_in_pyyaml() {
        let text = "a: &a {x: 1, y: 1}\nb: &b {x: 2, z: 2}\nc: {z: own, <<: [*a, *b]}\n\
                    d: 1\nd: 2\n&k key: *k\n*k : w\n";
        let value = parse(text).unwrap();
        assert_eq!(value["c"], json!({"x": "1", "z": "own", "y": "1"}));
        assert_eq!(value["d"], "2");
        assert_eq!(value["key"], "w");
    }

    #[test]
    fn faults_say_where_and_quote_nothing() {
        for (text, line) in [
            ("a: b\n c: d", 2),
            ("a: 1\n---\nb: 2", 2),
            ("a: !python/object:x hunter2", 1),
            ("x: &x [*x]", 1),
            ("a: 'hunter2", 1),
            ("<<: hunter2", 1),
            ("[a]: b", 1),
        ] {
            let fault = parse(text).unwrap_err();
            assert!(fault.line >= line && fault.column > 0, "{text}: {fault:?}");
            assert!(!fault.what.contains("hunter2"), "{fault:?}");
        }
        assert_eq!(parse(""), Ok(Value::Null));
        assert_eq!(parse("\u{feff}# nothing\n"), Ok(Value::Null));
    }

    #[test]
    fn anchors_cannot_blow_up() {
        let bomb: String = (1..40)
            .map(|n| format!("a{n}: &a{n} [*a{p}, *a{p}]\n", p = n - 1))
            .fold("a0: &a0 x\n".into(), |a, b| a + &b);
        assert!(parse(&bomb).unwrap_err().what.contains("too large"));
        let tower: String = (1..5000)
            .map(|n| format!("a{n}: &a{n} [*a{p}]\n", p = n - 1))
            .fold("a0: &a0 x\n".into(), |a, b| a + &b);
        assert!(parse(&tower).unwrap_err().what.contains("too large"));
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[-a-c0-9:_.eE+x<&*!\\[\\]{},#'\"|>~ \n\t]{0,60}") {
            let _ = parse(&text);
        }
    }
}
