//! As much of HTML as a login form needs: its tags, their attributes, and the text of an option.

use std::collections::HashMap;

/// A tag with its attributes, and the text up to the next one.
#[derive(Debug)]
pub(super) struct Tag {
    /// In lower case; with a `/` before it where it ends something.
    pub(super) name: String,
    attributes: HashMap<String, String>,
    pub(super) text: String,
}

impl Tag {
    pub(super) fn get(&self, attribute: &str) -> Option<&str> {
        self.attributes.get(attribute).map(String::as_str)
    }
}

/// The tags of a page in their order. What is in comments and scripts does not count.
pub(super) fn tags(page: &str) -> Vec<Tag> {
    let mut tags = Vec::new();
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        rest = &rest[start + 1..];
        if let Some(comment) = rest.strip_prefix("!--") {
            rest = comment.find("-->").map_or("", |end| &comment[end + 3..]);
            continue;
        }
        let Some((mut tag, after)) = tag(rest) else { continue };
        rest = after;
        if matches!(tag.name.as_str(), "script" | "style" | "textarea" | "template") {
            rest = rest
                .match_indices("</")
                .find(|(at, _)| ends(&rest[*at..], &tag.name))
                .map_or("", |(at, _)| &rest[at..]);
        }
        let text = rest.split('<').next().unwrap_or_default();
        tag.text = decoded(text);
        tags.push(tag);
    }
    tags
}

fn ends(text: &str, name: &str) -> bool {
    text.get(2..2 + name.len()).is_some_and(|ended| ended.eq_ignore_ascii_case(name))
}

/// What begins here, and what comes after it. Each character is looked at a few times at most: a page may be hostile.
fn tag(text: &str) -> Option<(Tag, &str)> {
    let is_name = |char: char| char.is_ascii_alphanumeric() || char == '-' || char == '/';
    let end = text.find(|char: char| !is_name(char))?;
    let name = text[..end].trim_end_matches('/').to_ascii_lowercase();
    if name.trim_start_matches('/').is_empty() {
        return None;
    }
    let mut rest = &text[end..];
    let mut attributes = HashMap::new();
    loop {
        rest = rest.trim_start_matches(|char: char| char.is_whitespace() || char == '/');
        if let Some(after) = rest.strip_prefix('>') {
            return Some((Tag { name, attributes, text: String::new() }, after));
        }
        let end = rest.find(|char: char| char.is_whitespace() || "=></".contains(char))?;
        let key = rest[..end].to_ascii_lowercase();
        rest = rest[end..].trim_start();
        let mut value = "";
        if let Some(after) = rest.strip_prefix('=') {
            let after = after.trim_start();
            (value, rest) = match after.chars().next()? {
                quote @ ('"' | '\'') => after[1..].split_once(quote)?,
                _ => after.split_at(after.find(|char: char| char.is_whitespace() || "<>".contains(char))?),
            };
        }
        if key.is_empty() && value.is_empty() {
            return None;
        }
        // The first one counts (HTML, "duplicate-attribute").
        attributes.entry(key).or_insert_with(|| decoded(value));
    }
}

/// The references that Django's `escape` writes, and the usual others.
fn decoded(text: &str) -> String {
    [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#x27;", "'"),
        ("&#39;", "'"),
        ("&nbsp;", " "),
        ("&amp;", "&"),
    ]
    .into_iter()
    .fold(text.to_owned(), |text, (reference, char)| text.replace(reference, char))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_attributes_and_text_are_read_as_browsers_read_them() {
        let page = "<!-- <form> --><FORM method='POST' action=/auth/login/ novalidate>\
                    <script>if (a<b) '<select>'</script><option value=\"a&amp;b\" selected>A &lt;b&gt;</option></form><br/>";
        let tags = tags(page);
        let names: Vec<_> = tags.iter().map(|tag| tag.name.as_str()).collect();
        assert_eq!(names, ["form", "script", "/script", "option", "/option", "/form", "br"]);
        assert_eq!((tags[0].get("method"), tags[0].get("action")), (Some("POST"), Some("/auth/login/")));
        assert_eq!((tags[0].get("novalidate"), tags[3].get("value")), (Some(""), Some("a&b")));
        assert_eq!(tags[3].text, "A <b>");
    }

    #[test]
    fn broken_pages_end() {
        for page in [
            "<",
            "<a",
            "<a b",
            "<a b=",
            "<a b='",
            "<!--",
            "<script>",
            "<script></script>",
            "<=>",
            "< a>",
            "<a =>",
            "</>",
            "<a ''>",
        ] {
            tags(page);
            // By a method that looks back or ahead, these would take minutes.
            tags(&page.repeat((1 << 20) / page.len()));
        }
    }
}
