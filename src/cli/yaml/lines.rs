//! How lines go into the text of a clouds.yaml or secure.yaml and out again.
//!
//! Whole lines are put in, each with a mark at its end, and nothing else is touched: what is ours can be told
//! from the user's own without a record elsewhere, and taking it out leaves every other byte as it was. That
//! the text then says what is meant, and everything else as before, is seen by parsing it again.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use granit_parser::ScalarStyle::{Folded, Literal};
use granit_parser::{Event, Parser, ScalarStyle, StructureStyle};
use serde_json::{Value, json};

/// The first line of a file that was not there before.
const NEW: &str =
    "# Made by ksb; `ksb clouds adopt --all --undo` and `ksb clouds remove` take out what it wrote.\n";

/// The key that every path begins with.
pub(in crate::cli) const CLOUDS: &str = "clouds";

/// Whose lines they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Mark {
    Adopt,
    Add,
    Setup,
}

impl Mark {
    const ALL: [Self; 3] = [Self::Adopt, Self::Add, Self::Setup];

    /// How they end.
    pub(in crate::cli) const fn text(self) -> &'static str {
        match self {
            Self::Adopt => "  # ksb clouds adopt",
            Self::Add => "  # ksb clouds add",
            Self::Setup => "  # ksb setup",
        }
    }

    /// The mark at the end of a line, if there is one.
    fn of(line: &str) -> Option<Self> {
        let line = line.trim_end_matches(['\r', '\n']);
        Self::ALL.into_iter().find(|mark| line.ends_with(mark.text()))
    }
}

/// Why a text stays as it is.
#[derive(Debug, PartialEq)]
pub(in crate::cli) enum Fault {
    /// There is something at that place already.
    Says(String),
    /// No lines can be put in or taken out where they would have to be, as within `{…}`.
    Form,
}

/// The text with `value` at the end of `path`, whose last key must not be there yet; without a text, that of a new
/// file.
pub(in crate::cli) fn put(
    text: Option<&str>,
    path: &[&str],
    value: &Value,
    mark: Mark,
) -> Result<String, Fault> {
    let text = text.unwrap_or(NEW);
    let nodes = parse(text).ok_or(Fault::Form)?;
    let mut key = None;
    let mut at = 0;
    for depth in 0..path.len() {
        let found = match nodes.get(at) {
            Some(node) if !is_null(&node.event) => {
                if !is_block(&node.event) {
                    return Err(Fault::Form);
                }
                find(&nodes, at, path[depth])
            }
            _ => None,
        };
        let Some(pair) = found else {
            let out = insert(text, &nodes, key, at, (&path[depth..], value, mark)).ok_or(Fault::Form)?;
            // What cannot be taken out again does not go in. (Remains of ours in the text are taken along.)
            let remains = text.starts_with(NEW) || Mark::ALL.iter().any(|mark| text.contains(mark.text()));
            return match take(&out, path, mark)? {
                Some(back) if back == text || remains => Ok(out),
                _ => Err(Fault::Form),
            };
        };
        (key, at) = (Some(pair.key), pair.value);
    }
    Err(Fault::Says(scalar(&nodes[at].event).unwrap_or("of an unusual form").to_owned()))
}

/// The text without the lines of this mark at the end of `path` and below it; nothing when they are not there.
pub(in crate::cli) fn take(text: &str, path: &[&str], mark: Mark) -> Result<Option<String>, Fault> {
    let nodes = parse(text).ok_or(Fault::Form)?;
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    if !leads_to(&nodes, &lines, path, mark) {
        return Ok(None);
    }
    if !is_block(&nodes[0].event) {
        return Err(Fault::Form);
    }
    let mut taking =
        Taking { nodes: &nodes, lines: &lines, mark, gone: BTreeSet::new(), given: BTreeSet::new() };
    let left = taking.mapping(0, path)?;
    let expected = if left.is_empty() { vec![] } else { taking.whole(0, left) };
    let Taking { gone, given, .. } = taking;

    let mut out = String::with_capacity(text.len());
    for (line, number) in lines.iter().zip(1..) {
        if gone.contains(&number) {
            continue;
        }
        match Mark::of(line).and_then(|mark| line.rsplit_once(mark.text())) {
            Some((before, ending)) if given.contains(&number) => out.extend([before, ending]),
            _ => out.push_str(line),
        }
    }
    let last = lines.len();
    if gone.contains(&last) && !lines[last - 1].ends_with('\n') {
        out.truncate(out.strip_suffix('\n').map_or(out.len(), |out| out.trim_end_matches('\r').len()));
    }
    let Some(rest) = parse(&out).filter(|nodes| same(nodes, &expected)) else { return Err(Fault::Form) };
    let others = {
        let lines: Vec<_> = out.split_inclusive('\n').collect();
        rest.iter().any(|node| mark_at(&lines, node).is_some())
    };
    if !others && let Some(rest) = out.strip_prefix(NEW).filter(|rest| !rest.trim().is_empty()) {
        out = rest.into();
    }
    Ok(Some(out))
}

/// The entries under `clouds` for which this mark is at the end of `below`, a path in the entry.
pub(in crate::cli) fn marked(text: &str, below: &[&str], mark: Mark) -> Vec<String> {
    let Some(nodes) = parse(text) else { return vec![] };
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let Some(clouds) = find(&nodes, 0, CLOUDS) else { return vec![] };
    let names = pairs(&nodes, clouds.value).into_iter().filter_map(|pair| scalar(&nodes[pair.key].event));
    let ours = |name: &&str| leads_to(&nodes, &lines, &[&[CLOUDS, *name], below].concat(), mark);
    names.filter(ours).map(str::to_owned).collect()
}

/// What a text has at a path, where that is a scalar.
pub(in crate::cli) fn said(text: &str, path: &[&str]) -> Option<String> {
    let nodes = parse(text)?;
    let found = path.iter().try_fold(0, |at, key| find(&nodes, at, key).map(|pair| pair.value))?;
    scalar(&nodes[found].event).map(str::to_owned)
}

/// Whether a text is that of a file of ours with nothing left in it.
pub(in crate::cli) fn is_spent(text: &str) -> bool {
    text.strip_prefix(NEW).is_some_and(|rest| rest.trim().is_empty())
}

/// Lines of ours on their way out.
struct Taking<'d, 't> {
    nodes: &'d [Node<'t>],
    lines: &'d [&'d str],
    mark: Mark,
    /// Lines that go.
    gone: BTreeSet<usize>,
    /// Lines that have come to carry things of the user's own, and are theirs now: only the mark goes.
    given: BTreeSet<usize>,
}

impl<'t> Taking<'_, 't> {
    /// What is left of the pairs of a mapping. Only those on `path` may go; at its end, all that are ours.
    fn mapping(&mut self, at: usize, path: &[&str]) -> Result<Vec<Event<'t>>, Fault> {
        let wanted = path.first().and_then(|key| find(self.nodes, at, key)).map(|pair| pair.key);
        let mut left = Vec::new();
        for pair in pairs(self.nodes, at) {
            if path.is_empty() || wanted == Some(pair.key) {
                left.extend(self.pair(pair, path.get(1..))?);
            } else {
                left.extend(self.events(pair.key, end(self.nodes, pair.value)));
            }
        }
        Ok(left)
    }

    /// What is left of a pair: on the way to the end of the path (`None` below it) or after it.
    fn pair(&mut self, pair: Pair, path: Option<&[&str]>) -> Result<Vec<Event<'t>>, Fault> {
        let node = &self.nodes[pair.key];
        let on_the_way = path.is_some_and(|path| !path.is_empty());
        // Whichever command wrote the line above them, the last one that leaves takes it along.
        let ours = mark_at(self.lines, node).is_some_and(|mark| on_the_way || mark == self.mark);
        let mut left = self.events(pair.key, pair.value);
        let is_block = is_block(&self.nodes[pair.value].event);
        if on_the_way && !is_block {
            return Err(Fault::Form); // whatever else is in there is in the same line
        }
        let below = if is_block { self.mapping(pair.value, path.unwrap_or_default())? } else { vec![] };
        if below.is_empty() && ours {
            self.gone.insert(node.line);
            return Ok(vec![]);
        }
        if !is_block {
            left.extend(self.events(pair.value, end(self.nodes, pair.value)));
            return Ok(left);
        }
        if below.is_empty() {
            left.push(NULL);
            return Ok(left);
        }
        let inner = &self.nodes[pair.value..end(self.nodes, pair.value)];
        let still_ours = |node: &Node<'_>| {
            mark_at(self.lines, node).is_some()
                && !self.gone.contains(&node.line)
                && !self.given.contains(&node.line)
        };
        if ours && !inner.iter().any(still_ours) {
            self.given.insert(node.line);
        }
        left.extend(self.whole(pair.value, below));
        Ok(left)
    }

    /// A mapping with other pairs in it.
    fn whole(&self, at: usize, pairs: Vec<Event<'t>>) -> Vec<Event<'t>> {
        let last = end(self.nodes, at) - 1;
        let (start, end) = (self.events(at, at + 1), self.events(last, last + 1));
        [start, pairs, end].concat()
    }

    fn events(&self, from: usize, to: usize) -> Vec<Event<'t>> {
        self.nodes[from..to].iter().map(|node| node.event.clone()).collect()
    }
}

/// A part of the document, and where it begins: the line counts from 1, the column from 0.
struct Node<'t> {
    event: Event<'t>,
    line: usize,
    column: usize,
}

/// Indices of a key and its value.
#[derive(Clone, Copy)]
struct Pair {
    key: usize,
    value: usize,
}

const NULL: Event<'static> = Event::Scalar(std::borrow::Cow::Borrowed(""), ScalarStyle::Plain, 0, None);

/// The nodes of the only document in their order, with the ends of sequences and mappings.
fn parse(text: &str) -> Option<Vec<Node<'_>>> {
    // PyYAML takes one that is not the first character for a letter, granit for nothing.
    if text.chars().skip(1).any(|char| char == '\u{feff}') {
        return None;
    }
    let mut nodes = Vec::new();
    let mut documents = 0;
    for item in Parser::new_from_str(text) {
        let (event, span) = item.ok()?;
        if matches!(event, Event::DocumentStart(..)) {
            documents += 1;
        }
        if documents > 1 {
            return None;
        }
        if event.is_node() || matches!(event, Event::SequenceEnd | Event::MappingEnd) {
            nodes.push(Node { event, line: span.start.line(), column: span.start.col() });
        }
    }
    Some(nodes)
}

/// The index after a node and all that is in it.
fn end(nodes: &[Node<'_>], start: usize) -> usize {
    let mut depth = 0_usize;
    for (at, node) in nodes.iter().enumerate().skip(start) {
        match node.event {
            Event::SequenceStart(..) | Event::MappingStart(..) => depth += 1,
            Event::SequenceEnd | Event::MappingEnd => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    nodes.len()
}

/// The pairs of a mapping; of anything else, none.
fn pairs(nodes: &[Node<'_>], mapping: usize) -> Vec<Pair> {
    let mut pairs = Vec::new();
    if !nodes.get(mapping).is_some_and(|node| matches!(node.event, Event::MappingStart(..))) {
        return pairs;
    }
    let mut key = mapping + 1;
    while nodes.get(key).is_some_and(|node| node.event != Event::MappingEnd) {
        let value = end(nodes, key);
        pairs.push(Pair { key, value });
        key = end(nodes, value);
    }
    pairs
}

/// The pair with this key; of several the last, which is the one that counts.
fn find(nodes: &[Node<'_>], mapping: usize, key: &str) -> Option<Pair> {
    pairs(nodes, mapping).into_iter().rev().find(|pair| scalar(&nodes[pair.key].event) == Some(key))
}

fn scalar<'e>(event: &'e Event<'_>) -> Option<&'e str> {
    match event {
        Event::Scalar(text, ..) => Some(text),
        _ => None,
    }
}

/// An absent value. (`null` in letters is one too, but has no room for lines below it.)
fn is_null(event: &Event<'_>) -> bool {
    matches!(event, Event::Scalar(text, ScalarStyle::Plain, 0, None) if text.is_empty() || text == "~")
}

/// Whether the nodes are these, wherever they stand. No document is the same as one with nothing in it.
fn same(nodes: &[Node<'_>], expected: &[Event<'_>]) -> bool {
    let nothing = |events: &[&Event<'_>]| events.iter().all(|event| is_null(event)) && events.len() < 2;
    let (nodes, expected): (Vec<_>, Vec<_>) =
        (nodes.iter().map(|node| &node.event).collect(), expected.iter().collect());
    let alike = |(a, b): (&&Event<'_>, &&Event<'_>)| a == b || is_null(a) && is_null(b);
    nothing(&nodes) && nothing(&expected)
        || nodes.len() == expected.len() && nodes.iter().zip(&expected).all(alike)
}

/// Whether the last key of `path` is there, in a line of this mark.
fn leads_to(nodes: &[Node<'_>], lines: &[&str], path: &[&str], mark: Mark) -> bool {
    let mut at = 0;
    let mut last = None;
    for key in path {
        let Some(pair) = find(nodes, at, key) else { return false };
        (at, last) = (pair.value, Some(pair.key));
    }
    last.is_some_and(|key| mark_at(lines, &nodes[key]) == Some(mark))
}

/// The mark of the line that a node begins in.
fn mark_at(lines: &[&str], node: &Node<'_>) -> Option<Mark> {
    Mark::of(lines.get(node.line.checked_sub(1)?)?)
}

fn is_block(event: &Event<'_>) -> bool {
    matches!(event, Event::MappingStart(StructureStyle::Block, ..))
}

/// Puts keys in, one below the other, and the value: first thing in the mapping `at`, below the line of its key, or
/// at the end of the file.
fn insert(
    text: &str,
    nodes: &[Node<'_>],
    key: Option<usize>,
    at: usize,
    (keys, value, mark): (&[&str], &Value, Mark),
) -> Option<String> {
    let first = pairs(nodes, at).first().map(|pair| nodes[pair.key].column);
    let indent = first.or_else(|| key.map(|key| nodes[key].column + 2)).unwrap_or(0);
    let mut lines = Vec::new();
    let (last, above) = keys.split_last()?;
    for (level, key) in above.iter().enumerate() {
        lines.push(format!("{:width$}{}:", "", plain_or_quoted(key, false), width = indent + 2 * level));
    }
    lines_of(last, value, indent + 2 * above.len(), &mut lines);
    for line in &mut lines {
        line.push_str(mark.text());
    }

    let place = match key {
        Some(key) => text.split_inclusive('\n').take(nodes[key].line).map(str::len).sum(),
        None => text.len(),
    };
    let (head, tail) = text.split_at(place);
    let newline = match text.split_inclusive('\n').next() {
        Some(line) if line.ends_with("\r\n") => "\r\n",
        _ => "\n",
    };
    let block = lines.join(newline);
    let out = if head.is_empty() || head.ends_with('\n') {
        format!("{head}{block}{newline}{tail}")
    } else {
        // A text block that ends with the file would gain a newline (PyYAML takes it so, granit does not).
        let last = nodes.iter().rev().find(|node| scalar(&node.event).is_some());
        if last.is_some_and(|node| matches!(node.event, Event::Scalar(_, Literal | Folded, ..))) {
            return None;
        }
        format!("{head}{newline}{block}") // ends without a newline, as before
    };

    let alone = lines.join("\n");
    let mut added: Vec<_> = parse(&alone)?.into_iter().map(|node| node.event).collect();
    let mut expected: Vec<_> = nodes.iter().map(|node| node.event.clone()).collect();
    if first.is_some() {
        added.pop();
        added.remove(0);
        let place = if key.is_some() { at + 1 } else { end(nodes, at) - 1 };
        expected.splice(place..place, added);
    } else {
        expected.splice(at..end(nodes, at), added);
    }
    same(&parse(&out)?, &expected).then_some(out)
}

/// A key and its value, each in a line of its own.
fn lines_of(key: &str, value: &Value, indent: usize, lines: &mut Vec<String>) {
    let start = format!("{:indent$}{}:", "", plain_or_quoted(key, false));
    match value {
        Value::Object(map) if !map.is_empty() => {
            lines.push(start);
            for (key, value) in map {
                lines_of(key, value, indent + 2, lines);
            }
        }
        value => lines.push(format!("{start} {}", in_one_line(value, true))),
    }
}

/// A value in one line; at the end of it, addresses and paths need no quotes.
fn in_one_line(value: &Value, last: bool) -> String {
    match value {
        // A whole number was one before it was read: openstacksdk makes texts of most, but not of those in lists.
        Value::String(text) if text.parse::<u32>().is_ok_and(|number| number.to_string() == *text) => {
            text.clone()
        }
        Value::String(text) => plain_or_quoted(text, last),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| in_one_line(item, false)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(map) => {
            let pair = |(key, value): (&String, &Value)| {
                format!("{}: {}", plain_or_quoted(key, false), in_one_line(value, false))
            };
            format!("{{{}}}", map.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
        value => value.to_string(),
    }
}

/// A text as YAML writes it: in quotes wherever without them it might be a number, a boolean or worse.
fn plain_or_quoted(text: &str, address: bool) -> String {
    const NOT_TEXT: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let inside: &[u8] = if address { b"_.-/:@%+~" } else { b"_.-" };
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || address && c == '/')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || inside.contains(&b))
        && !text.ends_with(':')
        && !NOT_TEXT.contains(&text.to_ascii_lowercase().as_str());
    if plain {
        return text.to_owned();
    }
    // PyYAML refuses what cannot be printed, and takes U+2028 for the end of a line.
    let mut out = String::new();
    for char in json!(text).to_string().chars() {
        match char {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                // A text takes everything.
                let _ = write!(out, "\\u{:04x}", u32::from(char));
            }
            char => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPE: &[&str] = &["auth_type"];

    fn adopt(text: Option<&str>, cloud: &str) -> Result<String, Fault> {
        put(text, &[CLOUDS, cloud, TYPE[0]], &"v3broker".into(), Mark::Adopt)
    }

    fn undo(text: &str, cloud: &str) -> Result<Option<String>, Fault> {
        take(text, &[CLOUDS, cloud, TYPE[0]], Mark::Adopt)
    }

    fn adopted(text: &str) -> Vec<String> {
        marked(text, TYPE, Mark::Adopt)
    }

    /// Adopts, and sees that undoing brings the very same text back.
    #[track_caller]
    fn there_and_back(text: &str, cloud: &str) -> String {
        let out = adopt(Some(text), cloud).unwrap();
        assert_eq!(adopted(&out), [cloud]);
        assert_eq!(adopt(Some(&out), cloud), Err(Fault::Says("v3broker".into())));
        assert_eq!(undo(&out, cloud).unwrap().as_deref(), Some(text));
        out
    }

    #[test]
    fn lines_go_where_a_person_would_write_them() {
        assert_eq!(
            there_and_back(
                "# mine\nclouds:\n  # production\n  prod:\n    auth:\n      password: x # old\n",
                "demo"
            ),
            "# mine\nclouds:\n  demo:  # ksb clouds adopt\n    auth_type: v3broker  # ksb clouds adopt\n  # production\n  prod:\n    \
             auth:\n      password: x # old\n"
        );
        assert_eq!(
            there_and_back(
                "clouds:\n    demo: # mine\n        auth:\n            username: a\n\n# end",
                "demo"
            ),
            "clouds:\n    demo: # mine\n        auth_type: v3broker  # ksb clouds adopt\n        auth:\n            \
             username: a\n\n# end"
        );
        assert_eq!(
            there_and_back("cache:\r\n  class: x", "demo"),
            "cache:\r\n  class: x\r\nclouds:  # ksb clouds adopt\r\n  demo:  # ksb clouds adopt\r\n    auth_type: v3broker  \
             # ksb clouds adopt"
        );
    }

    #[test]
    fn any_text_comes_back_byte_for_byte() {
        for text in [
            "",
            "\n",
            "# only a comment",
            "---\n",
            "---\n# nothing\n",
            "clouds:",
            "clouds:\n",
            "clouds:   # none yet\r\n",
            "clouds:\n  demo:",
            "clouds:\n  demo:\n\n",
            "clouds:\n  demo:\n  other:\n    auth: {password: x}\n",
            "clouds:\n  demo:\n    auth: {password: '#x'}\n    <<: {verify: true}",
            "  clouds:\n   \"demo\":\n     auth:\n      password: |\n       a\n       b\n",
            "\u{feff}clouds:\n  other:\n    auth:\n      password: x\n",
            "%YAML 1.1\n---\nclouds:\n  other:\n    auth: &a\n      password: x\n  third:\n    auth: *a\n",
            "a: |+\n  text\n\n",
        ] {
            there_and_back(text, "demo");
        }
    }

    #[test]
    fn odd_names_are_quoted() {
        for name in ["my cloud", "on", "12", "a: b", "#", "\"", "käse", "", "line\nbreak", "~", "-"] {
            there_and_back("clouds:\n  x:\n    auth: {}\n", name);
        }
    }

    #[test]
    fn what_has_no_room_for_lines_stays_as_it_is() {
        for text in [
            "{}",
            "clouds: {}\n",
            "clouds: {demo: {auth: {password: x}}}\n",
            "clouds:\n  demo: {}\n",
            "clouds:\n  demo: ~\n",
            "clouds:\n  x: &x\n    auth: {}\n  demo: *x\n",
            "clouds:\n  demo:\n    &x\n    auth: {}\n",
            "clouds:\n  ? demo\n  : auth: {}\n",
            "a: 1\n...\n",
            "a: 1\n---\nb: 2\n",
            "a: |\n  no newline",
            "# note\n\u{feff}# a file appended to another\n",
            "clouds: [",
        ] {
            assert_eq!(adopt(Some(text), "demo"), Err(Fault::Form), "{text}");
        }
        assert_eq!(
            adopt(Some("clouds:\n  demo:\n    auth_type: password\n"), "demo"),
            Err(Fault::Says("password".into()))
        );
    }

    #[test]
    fn several_entries_come_and_go_in_any_order() {
        for text in ["", "clouds:", "clouds:\n  b:\n    auth: {}\n", "x: 1"] {
            let all =
                ["a", "b", "c"].iter().fold(text.to_owned(), |text, name| adopt(Some(&text), name).unwrap());
            assert_eq!(adopted(&all).len(), 3);
            for order in [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["c", "b", "a"]] {
                let back = order.iter().fold(all.clone(), |text, name| undo(&text, name).unwrap().unwrap());
                assert_eq!(back, text, "{order:?}");
            }
        }
    }

    #[test]
    fn a_file_of_ours_is_spent_when_nothing_is_left_in_it() {
        let made = adopt(None, "demo").unwrap();
        assert!(made.starts_with(NEW) && !is_spent(&made));
        assert!(is_spent(&undo(&made, "demo").unwrap().unwrap()));
        assert!(!is_spent(""));

        let more = format!("{made}  prod:\n    auth:\n      password: x\n");
        let left = undo(&more, "demo").unwrap().unwrap();
        assert_eq!(left, "clouds:\n  prod:\n    auth:\n      password: x\n");
    }

    #[test]
    fn what_the_person_added_stays_and_is_theirs() {
        let made = adopt(None, "demo").unwrap();
        let more = format!("{made}    auth:\n      username: alice\n");
        let left = undo(&more, "demo").unwrap().unwrap();
        assert_eq!(left, "clouds:\n  demo:\n    auth:\n      username: alice\n");
    }

    #[test]
    fn a_line_without_the_mark_is_the_persons_own() {
        let text = "clouds:\n  demo:\n    auth_type: v3broker\n";
        assert_eq!(undo(text, "demo"), Ok(None));
        assert_eq!(adopt(Some(text), "demo"), Err(Fault::Says("v3broker".into())));
        assert_eq!(said(text, &[CLOUDS, "demo", TYPE[0]]).as_deref(), Some("v3broker"));
        assert_eq!(said(text, &[CLOUDS, "demo"]), None);
    }

    fn entry() -> Value {
        json!({
            "auth_type": "v3applicationcredential",
            "auth": {"auth_url": "http://127.0.0.1:21234/v3", "application_credential_id": "0e1"},
            "region_name": "Region: 1",
            "verify": false,
            "cacert": "/etc/ca #1.pem",
            "image_api_version": "2",
            "timeout": Value::Null,
            "metrics": {"statsd": {"host": "h", "port": "8125"}, "none": {}},
            "networks": [{"name": "a, b", "default": true}, "käse\u{2028}"],
        })
    }

    fn add(text: Option<&str>, name: &str) -> Result<String, Fault> {
        put(text, &[CLOUDS, name], &entry(), Mark::Add)
    }

    fn remove(text: &str, name: &str) -> Result<Option<String>, Fault> {
        take(text, &[CLOUDS, name], Mark::Add)
    }

    #[test]
    fn a_whole_entry_goes_in_and_out() {
        let text = "clouds:\n  # mine\n  demo:\n    auth: {}\n";
        let out = add(Some(text), "demo-ksb").unwrap();
        let lines: Vec<_> = out.lines().map(|line| line.trim_end_matches(Mark::Add.text())).collect();
        assert_eq!(
            lines,
            [
                "clouds:",
                "  demo-ksb:",
                "    auth_type: v3applicationcredential",
                "    auth:",
                "      auth_url: http://127.0.0.1:21234/v3",
                "      application_credential_id: \"0e1\"",
                "    region_name: \"Region: 1\"",
                "    verify: false",
                "    cacert: \"/etc/ca #1.pem\"",
                "    image_api_version: 2",
                "    timeout: null",
                "    metrics:",
                "      statsd:",
                "        host: h",
                "        port: 8125",
                "      none: {}",
                "    networks: [{name: \"a, b\", default: true}, \"käse\\u2028\"]",
                "  # mine",
                "  demo:",
                "    auth: {}",
            ]
        );
        assert_eq!(marked(&out, &[], Mark::Add), ["demo-ksb"]);
        assert_eq!(marked(&out, &[], Mark::Adopt), [""; 0]);
        assert_eq!(remove(&out, "demo-ksb").unwrap().as_deref(), Some(text));
        assert_eq!(remove(&out, "demo"), Ok(None));
        assert_eq!(add(Some(&out), "demo-ksb"), Err(Fault::Says("of an unusual form".into())));
    }

    #[test]
    fn edits_around_and_within_an_entry_stay() {
        let out = add(Some("clouds:\n  demo:\n    auth: {}\n"), "new").unwrap();
        let around = out
            .replace("  demo:", "  # more\n  other: {}\n  demo:")
            .replace("clouds:\n", "# top\n\nclouds:\n");
        assert_eq!(
            remove(&around, "new").unwrap().unwrap(),
            "# top\n\nclouds:\n  # more\n  other: {}\n  demo:\n    auth: {}\n"
        );
        let within = out.replace("    region_name", "    # why\n    force_ipv4: true\n    region_name");
        assert_eq!(
            remove(&within, "new").unwrap().unwrap(),
            "clouds:\n  new:\n    # why\n    force_ipv4: true\n  demo:\n    auth: {}\n"
        );
        // Rewritten so that whole lines say something else.
        let joined = "clouds: {new: {verify: true}, demo: {}}  # ksb clouds add\n";
        assert_eq!(remove(joined, "new"), Err(Fault::Form));
        let stretched = out.replace("timeout: null", "timeout:\n      - 1");
        assert_eq!(
            remove(&stretched.replace("timeout:\n", "timeout:  # ksb clouds add\n"), "new"),
            Err(Fault::Form)
        );
    }

    #[test]
    fn the_two_commands_leave_each_other_alone() {
        for text in [None, Some("clouds:\n  demo:\n    verify: true\n"), Some("clouds:"), Some("x: 1")] {
            let both = add(Some(&adopt(text, "demo").unwrap()), "demo-ksb").unwrap();
            assert_eq!(
                (adopted(&both), marked(&both, &[], Mark::Add)),
                (vec!["demo".into()], vec!["demo-ksb".into()])
            );
            let one = remove(&undo(&both, "demo").unwrap().unwrap(), "demo-ksb").unwrap().unwrap();
            let other = undo(&remove(&both, "demo-ksb").unwrap().unwrap(), "demo").unwrap().unwrap();
            assert_eq!(one, other);
            match text {
                None => assert!(is_spent(&one), "{one}"),
                Some(text) => assert_eq!(one, text),
            }
        }
    }

    /// Texts as people write them, with everything that a line editor could trip over.
    fn texts() -> impl Strategy<Value = String> {
        let line = prop::sample::select(vec![
            "clouds:",
            "clouds: &all",
            "  demo:",
            "  other: &o",
            "  third:",
            "    <<: *o",
            "    auth:",
            "    auth: {}",
            "      password: x",
            "      password: '#x'  # old",
            "    verify: no",
            "# note",
            "  # note",
            "",
            "cache:",
            "  class: \"a: b\"",
            "  demo: {}",
            "    networks:",
            "    - a",
            "      - name: b",
            "    text: |",
            "      b",
            "    text: >-",
            "---",
            "--- # start",
            "%YAML 1.1",
            "...",
            "\t",
            "   ",
            "    clouds:",
            "        deep: 1",
            "clouds: {}",
            "  clouds: x",
            "\u{feff}# bom",
        ]);
        let lines = prop::collection::vec(line, 0..14);
        let newline = prop::sample::select(vec!["\n", "\r\n"]);
        (lines, newline, any::<bool>())
            .prop_map(|(lines, newline, ends)| lines.join(newline) + if ends { newline } else { "" })
    }

    proptest! {
        #[test]
        fn whatever_goes_in_comes_out(text in texts()) {
            if let Ok(out) = adopt(Some(&text), "demo") {
                prop_assert_eq!(undo(&out, "demo").unwrap().unwrap(), text);
            }
        }

        #[test]
        fn entries_come_and_go_in_any_order(text in texts(), order in Just([0, 1, 2]).prop_shuffle(), adopts: bool) {
            let mut all = text.clone();
            let mut in_it = Vec::new();
            for name in ["one", "two", "three"] {
                if let Ok(out) = add(Some(&all), name) {
                    all = out;
                    in_it.push(name);
                }
            }
            let adopted = adopts.then(|| adopt(Some(&all), "demo").ok()).flatten();
            let mut all = adopted.clone().unwrap_or(all);
            for place in order {
                if let Some(name) = in_it.get(place) {
                    all = remove(&all, name).unwrap().unwrap();
                }
            }
            if adopted.is_some() {
                all = undo(&all, "demo").unwrap().unwrap();
            }
            prop_assert_eq!(all, text);
        }

        #[test]
        fn any_value_means_what_it_should(name in "\\PC{1,12}", texts in prop::collection::vec("[ -~äß€\t\u{85}\u{2028}😀]{0,12}", 4)) {
            prop_assume!(name != "x");
            let [one, two, three, four]: [String; 4] = texts.try_into().unwrap();
            let value = json!({"auth": {"a": one, "b": [two, {"c": three}]}, "d": four, "e": true});
            let out = put(Some("clouds:\n  x: {}\n"), &[CLOUDS, &name], &value, Mark::Add).unwrap();
            for (path, text) in [(&["auth", "a"][..], &value["auth"]["a"]), (&["d"], &value["d"])] {
                let said = said(&out, &[&[CLOUDS, &name], path].concat());
                prop_assert_eq!(said.as_deref(), text.as_str());
            }
            let back = take(&out, &[CLOUDS, &name], Mark::Add).unwrap();
            prop_assert_eq!(back.as_deref(), Some("clouds:\n  x: {}\n"));
        }
    }
}
