//! How `auth_type: v3broker` goes into the text of a secure.yaml and out again.
//!
//! Whole lines are put in, each with a mark at its end, and nothing else is touched: what was ours can be told
//! from the person's own without a record elsewhere, and taking it out leaves every other byte as it was. That
//! the text then says what is meant, and everything else as before, is seen by parsing it again.

use granit_parser::ScalarStyle::{Folded, Literal};
use granit_parser::{Event, Parser, ScalarStyle, StructureStyle};
use serde_json::json;

const MARK: &str = "  # ksb adopt";
const NEW: &str = "# Made by `ksb adopt`; `ksb adopt --all --undo` removes it again.\n";
const AUTH_TYPE: &str = "auth_type";
const VALUE: &str = "v3broker";

/// Why a text stays as it is.
#[derive(Debug, PartialEq)]
pub(super) enum Fault {
    /// The entry has an `auth_type` of its own in there.
    Says(String),
    /// No lines can be put in or taken out where they would have to be, as within `{…}`.
    Form,
}

/// The text with `auth_type: v3broker` in the entry; without a text, that of a new file.
pub(super) fn adopt(text: Option<&str>, cloud: &str) -> Result<String, Fault> {
    let text = text.unwrap_or(NEW);
    let nodes = parse(text).ok_or(Fault::Form)?;
    let path = ["clouds", cloud, AUTH_TYPE];
    let mut key = None;
    let mut at = 0;
    for depth in 0..path.len() {
        let found = match nodes.get(at) {
            Some(node) if !is_null(&node.event) => {
                if !matches!(node.event, Event::MappingStart(StructureStyle::Block, ..)) {
                    return Err(Fault::Form);
                }
                find(&nodes, at, path[depth])
            }
            _ => None,
        };
        let Some(pair) = found else {
            let out = insert(text, &nodes, key, at, &path[depth..]).ok_or(Fault::Form)?;
            // What cannot be taken out again does not go in. (Remains of ours in the text are taken along.)
            let remains = text.starts_with(NEW) || text.contains(MARK);
            return match undo(&out, cloud)? {
                Some(back) if back == text || remains => Ok(out),
                _ => Err(Fault::Form),
            };
        };
        (key, at) = (Some(pair.key), pair.value);
    }
    Err(Fault::Says(scalar(&nodes[at].event).unwrap_or("of an unusual form").to_owned()))
}

/// The text without what [`adopt`] put in for the entry; nothing when there is none of it.
pub(super) fn undo(text: &str, cloud: &str) -> Result<Option<String>, Fault> {
    let nodes = parse(text).ok_or(Fault::Form)?;
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let Some(chain) = ours(&nodes, &lines, cloud) else { return Ok(None) };
    let holder = |level: usize| if level == 0 { 0 } else { chain[level - 1].value };
    let alone = |level: usize| pairs(&nodes, holder(level)).len() == 1;
    let is_ours = |level: usize| is_marked(&lines, &nodes[chain[level].key]);

    // Upwards for as long as a line of ours has nothing else below it.
    let mut top = 2;
    while top > 0 && alone(top) && is_ours(top - 1) {
        top -= 1;
    }
    let mut expected: Vec<_> = nodes.iter().map(|node| node.event.clone()).collect();
    if alone(top) {
        let nothing = (top > 0).then_some(NULL);
        expected.splice(holder(top)..end(&nodes, holder(top)), nothing);
    } else {
        expected.splice(chain[top].key..end(&nodes, chain[top].value), []);
    }
    let gone: Vec<_> = chain[top..].iter().map(|pair| nodes[pair.key].line).collect();
    // A line that has come to carry things of the person's own is theirs now.
    let others = adopted_in(&nodes, &lines).iter().any(|name| name != cloud);
    let given: Vec<_> = (0..top)
        .filter(|level| is_ours(*level) && (*level > 0 || !others))
        .map(|level| nodes[chain[level].key].line)
        .collect();

    let mut out = String::with_capacity(text.len());
    for (line, number) in lines.iter().zip(1..) {
        match line.rsplit_once(MARK) {
            _ if gone.contains(&number) => {}
            Some((before, ending)) if given.contains(&number) => out.extend([before, ending]),
            _ => out.push_str(line),
        }
    }
    let last = lines.len();
    if gone.contains(&last) && !lines[last - 1].ends_with('\n') {
        out.truncate(out.strip_suffix('\n').map_or(out.len(), |out| out.trim_end_matches('\r').len()));
    }
    if !others && let Some(rest) = out.strip_prefix(NEW).filter(|rest| !rest.trim().is_empty()) {
        out = rest.into();
    }
    let as_meant = parse(&out).is_some_and(|nodes| same(&nodes, &expected));
    if as_meant { Ok(Some(out)) } else { Err(Fault::Form) }
}

/// The entries that [`adopt`] put something in for.
pub(super) fn adopted(text: &str) -> Vec<String> {
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    parse(text).map_or_else(Vec::new, |nodes| adopted_in(&nodes, &lines))
}

/// Whether a text is that of a file of ours with nothing left in it.
pub(super) fn is_spent(text: &str) -> bool {
    text.strip_prefix(NEW).is_some_and(|rest| rest.trim().is_empty())
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

/// `clouds`, the entry and its `auth_type`, if the latter is of our making.
fn ours(nodes: &[Node<'_>], lines: &[&str], cloud: &str) -> Option<[Pair; 3]> {
    let clouds = find(nodes, 0, "clouds")?;
    let entry = find(nodes, clouds.value, cloud)?;
    let own = find(nodes, entry.value, AUTH_TYPE)?;
    let ours = scalar(&nodes[own.value].event) == Some(VALUE) && is_marked(lines, &nodes[own.key]);
    ours.then_some([clouds, entry, own])
}

fn adopted_in(nodes: &[Node<'_>], lines: &[&str]) -> Vec<String> {
    let Some(clouds) = find(nodes, 0, "clouds") else { return vec![] };
    let names = pairs(nodes, clouds.value).into_iter().filter_map(|pair| scalar(&nodes[pair.key].event));
    names.filter(|name| ours(nodes, lines, name).is_some()).map(str::to_owned).collect()
}

fn is_marked(lines: &[&str], key: &Node<'_>) -> bool {
    lines.get(key.line - 1).is_some_and(|line| line.trim_end_matches(['\r', '\n']).ends_with(MARK))
}

/// Puts the keys in, one below the other: first thing in the mapping `at`, below the line of its key, or at
/// the end of the file.
fn insert(text: &str, nodes: &[Node<'_>], key: Option<usize>, at: usize, keys: &[&str]) -> Option<String> {
    let first = pairs(nodes, at).first().map(|pair| nodes[pair.key].column);
    let indent = first.or_else(|| key.map(|key| nodes[key].column + 2)).unwrap_or(0);
    let line = |(level, key): (usize, &&str)| {
        let value = if *key == AUTH_TYPE { format!(" {VALUE}") } else { String::new() };
        format!("{:width$}{}:{value}{MARK}", "", plain_or_quoted(key), width = indent + 2 * level)
    };
    let lines: Vec<_> = keys.iter().enumerate().map(line).collect();

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

/// A key as YAML writes it: in quotes wherever without them it might be a number, a boolean or worse.
fn plain_or_quoted(key: &str) -> String {
    const NOT_TEXT: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let plain = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        && !NOT_TEXT.contains(&key.to_ascii_lowercase().as_str());
    if plain { key.to_owned() } else { json!(key).to_string() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
            "# mine\nclouds:\n  demo:  # ksb adopt\n    auth_type: v3broker  # ksb adopt\n  # production\n  prod:\n    \
             auth:\n      password: x # old\n"
        );
        assert_eq!(
            there_and_back(
                "clouds:\n    demo: # mine\n        auth:\n            username: a\n\n# end",
                "demo"
            ),
            "clouds:\n    demo: # mine\n        auth_type: v3broker  # ksb adopt\n        auth:\n            \
             username: a\n\n# end"
        );
        assert_eq!(
            there_and_back("cache:\r\n  class: x", "demo"),
            "cache:\r\n  class: x\r\nclouds:  # ksb adopt\r\n  demo:  # ksb adopt\r\n    auth_type: v3broker  \
             # ksb adopt"
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
        let changed = "clouds:\n  demo:\n    auth_type: password  # ksb adopt\n";
        assert_eq!(undo(changed, "demo"), Ok(None));
    }

    proptest! {
        #[test]
        fn whatever_goes_in_comes_out(
            lines in prop::collection::vec(
                prop::sample::select(vec![
                    "clouds:", "  demo:", "  other:", "    auth:", "      password: x", "    verify: no", "# note",
                    "  # note", "", "cache:", "  demo: {}", "    - a", "    text: |", "      b", "---", "\t",
                ]),
                0..12,
            ),
            newline in prop::sample::select(vec!["\n", "\r\n"]),
            ends in any::<bool>(),
        ) {
            let text = lines.join(newline) + if ends { newline } else { "" };
            if let Ok(out) = adopt(Some(&text), "demo") {
                prop_assert_eq!(undo(&out, "demo").unwrap().unwrap(), text);
            }
        }
    }
}
