//! As much of HTML as a login form needs: its tags, their attributes, and the text after each.

use std::collections::HashMap;

use html5gum::{DefaultEmitter, Token, Tokenizer};

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

/// The tags of a page in their order. Comments and what is in scripts count as no tags.
pub(super) fn tags(page: &str) -> Vec<Tag> {
    let mut emitter = DefaultEmitter::default();
    emitter.naively_switch_states(true);
    let mut tags = Vec::<Tag>::new();
    for Ok(token) in Tokenizer::new_with_emitter(page, emitter) {
        match token {
            Token::StartTag(start) => {
                let attributes = start.attributes.iter().map(|(name, value)| (text(name), text(value)));
                tags.push(Tag {
                    name: text(&start.name),
                    attributes: attributes.collect(),
                    text: String::new(),
                });
            }
            Token::EndTag(end) => tags.push(Tag {
                name: format!("/{}", text(&end.name)),
                attributes: HashMap::new(),
                text: String::new(),
            }),
            Token::String(content) => {
                if let Some(tag) = tags.last_mut() {
                    tag.text.push_str(&text(&content));
                }
            }
            _ => {}
        }
    }
    tags
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_attributes_and_text_are_read_as_browsers_read_them() {
        let page = "<!-- <form> --><FORM method='POST' action=/auth/login/ novalidate>\
                    <script>if (a<b) '<select>'</script><option value=\"a&amp;b\" selected>A &lt;b&gt; &eacute;</option></form><br/>";
        let tags = tags(page);
        let names: Vec<_> = tags.iter().map(|tag| tag.name.as_str()).collect();
        assert_eq!(names, ["form", "script", "/script", "option", "/option", "/form", "br"]);
        assert_eq!((tags[0].get("method"), tags[0].get("action")), (Some("POST"), Some("/auth/login/")));
        assert_eq!((tags[0].get("novalidate"), tags[3].get("value")), (Some(""), Some("a&b")));
        assert_eq!(tags[3].text, "A <b> é");
    }

    #[test]
    fn broken_pages_end() {
        for page in ["<", "<a", "<a b", "<a b=", "<a b='", "<!--", "<script>", "<=>", "</>", "<a ''>"] {
            tags(page);
            // By a method that looks back or ahead, these would take minutes.
            tags(&page.repeat((1 << 18) / page.len()));
        }
    }
}
