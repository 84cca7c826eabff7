"""Every Cypher text of this project, named. Data goes in by parameters only; nothing is ever formatted in.

Invariant: all of them only read, and all that start from ids find them by the unique constraints' indexes. Types are
looked up from the annotation, so that no plan starts at an AnnotationType, which all annotations hang on.

Cypher 5 of Neo4j 5.23 or later (`CALL (variable) { ... }`).
"""

from typing import Final, LiteralString

# The pages of $wanted, a list of {id, known}: [id, exists, kind, annotation, other annotation, target, columns], in any
# order: nothing else is promised without an ORDER BY, which would wait for the last. `known`: [annotation, other
# annotation, target] of the pairs that are not asked for.
# kind 'pair': [source starts, source ends, hit starts, hit ends] of the aligned segments of two annotations, `target`
# null when the other belongs to no manifestation; DISTINCT, because two annotations may be ALIGNED_TO each other in
# both directions. kind 'layer': [segments, starts, ends] of a segmentation annotation. kind 'end': one row, always.
# Columns, because lists of lists cost the driver twice as much; of collected nodes, because collect() leaves out null.
# A row a part and not a row a page, so that one can be built while the next is read.
# The hops of the innermost MATCH are apart, and b is compared at the end, because one pattern that ends in a2 costs a
# third more: it checks that no relation repeats, and looks for each hit from both sides.
READ_PAGES: Final[LiteralString] = """
UNWIND $wanted AS page
WITH page.id AS id, page.known AS known
OPTIONAL MATCH (m:Manifestation {id: id})
CALL (m, known) {
  MATCH (m)<-[:ANNOTATION_OF]-(a1:Annotation)-[:ALIGNED_TO]-(a2:Annotation)
  WHERE EXISTS { (a1)-[:HAS_TYPE]->(:AnnotationType {name: 'alignment'}) }
    AND EXISTS { (a2)-[:HAS_TYPE]->(:AnnotationType {name: 'alignment'}) }
  WITH DISTINCT a1, a2
  OPTIONAL MATCH (a2)-[:ANNOTATION_OF]->(target:Manifestation)
  WITH a1, a2, target
  WHERE NOT coalesce([a1.id, a2.id, target.id] IN known, false)
  CALL (a1, a2) {
    MATCH (a1)<-[:SEGMENTATION_OF]-(s:Segment)
    MATCH (s)-[:ALIGNED_TO]-(h:Segment)
    MATCH (h)-[:SEGMENTATION_OF]->(b)
    WITH a2, s, h, b
    WHERE b = a2
    WITH collect(s) AS sources, collect(h) AS hits
    RETURN [
      [s IN sources | s.span_start], [s IN sources | s.span_end], [h IN hits | h.span_start], [h IN hits | h.span_end]
    ] AS columns
  }
  RETURN 'pair' AS kind, a1.id AS annotation, a2.id AS other, target.id AS target, columns
UNION ALL
  MATCH (m)<-[:ANNOTATION_OF]-(a:Annotation)
  WHERE EXISTS { (a)-[:HAS_TYPE]->(:AnnotationType {name: 'segmentation'}) }
  CALL (a) {
    MATCH (a)<-[:SEGMENTATION_OF]-(s:Segment)
    WITH collect(s) AS segments
    RETURN [
      [s IN segments | s.id], [s IN segments | s.span_start], [s IN segments | s.span_end]
    ] AS columns
  }
  RETURN 'layer' AS kind, a.id AS annotation, null AS other, null AS target, columns
UNION ALL
  RETURN 'end' AS kind, null AS annotation, null AS other, null AS target, null AS columns
}
RETURN id, m IS NOT NULL AS exists, kind, annotation, other, target, columns
"""

# The segments that a job of manifestation $id is cut from: one row for each annotation of its segmentation and its
# pagination, [type, annotation, [segments, starts, ends]] as above; no row at all when the manifestation does not
# exist, a row of nulls when it has neither.
LIST_SEGMENTS: Final[LiteralString] = """
MATCH (m:Manifestation {id: $id})
OPTIONAL MATCH (m)<-[:ANNOTATION_OF]-(a:Annotation)-[:HAS_TYPE]->(k:AnnotationType)
WHERE k.name IN ['segmentation', 'pagination']
CALL (a) {
  MATCH (a)<-[:SEGMENTATION_OF]-(s:Segment)
  WITH collect(s) AS segments
  RETURN [
    [s IN segments | s.id], [s IN segments | s.span_start], [s IN segments | s.span_end]
  ] AS columns
}
RETURN k.name AS type, a.id AS annotation, columns
"""

# Where the last segment of any annotation of manifestation $id ends: one row, null when it has no segment with a span;
# no row at all when the manifestation does not exist.
TEXT_EXTENT: Final[LiteralString] = """
MATCH (m:Manifestation {id: $id})
OPTIONAL MATCH (m)<-[:ANNOTATION_OF]-(:Annotation)<-[:SEGMENTATION_OF]-(s:Segment)
WHERE s.span_end IS :: INTEGER
WITH m, max(s.span_end) AS end
RETURN end
"""

# The texts that a job can be cut from, in the order of their ids, those after $after.
LIST_TEXTS: Final[LiteralString] = """
MATCH (m:Manifestation)
WHERE m.id > $after AND EXISTS {
  MATCH (m)<-[:ANNOTATION_OF]-(a:Annotation)-[:HAS_TYPE]->(k:AnnotationType)
  WHERE k.name IN ['segmentation', 'pagination'] AND EXISTS { (a)<-[:SEGMENTATION_OF]-(:Segment) }
}
RETURN m.id AS id
ORDER BY id
LIMIT $limit
"""

# The spans of those of $ids that exist and have one.
FIND_SPANS: Final[LiteralString] = """
UNWIND $ids AS id
MATCH (s:Segment {id: id})
WHERE s.span_start IS NOT NULL AND s.span_end IS NOT NULL
RETURN s.id AS id, s.span_start AS start, s.span_end AS end
"""

# What people call the texts of $wanted, a list of {id, low, length}, and `length` characters of each from `low` on:
# [id, title, content], null where the graph holds none. Subscripts, as most graphs know neither property, and a name
# that no node has is warned of at each query.
READ_WORDS: Final[LiteralString] = """
UNWIND $wanted AS page
MATCH (m:Manifestation {id: page.id})
WITH m, page, m['title'] AS title, m['content'] AS content
RETURN m.id AS id,
  CASE WHEN title IS :: STRING NOT NULL THEN left(title, 300) END AS title,
  CASE WHEN content IS :: STRING NOT NULL THEN substring(content, page.low, page.length) END AS content
"""

# Whether the database answers.
PING: Final[LiteralString] = "RETURN 1 AS one"

# Whether any text is there that we may see. From the database's own counters.
ANY_TEXT: Final[LiteralString] = "RETURN EXISTS { (:Manifestation) } AS sees_texts"

# --- For the validator. $limit bounds what is looked at. Rows of faults: [what is wrong, how many, an example].

# How much there is of everything that the queries above name: [kind, name, count]. From the database's own counters.
COUNTS: Final[LiteralString] = """
RETURN 'label' AS kind, 'Manifestation' AS name, COUNT { (:Manifestation) } AS count
UNION ALL
RETURN 'label' AS kind, 'Annotation' AS name, COUNT { (:Annotation) } AS count
UNION ALL
RETURN 'label' AS kind, 'AnnotationType' AS name, COUNT { (:AnnotationType) } AS count
UNION ALL
RETURN 'label' AS kind, 'Segment' AS name, COUNT { (:Segment) } AS count
UNION ALL
RETURN 'relationship type' AS kind, 'ANNOTATION_OF' AS name, COUNT { ()-[:ANNOTATION_OF]->() } AS count
UNION ALL
RETURN 'relationship type' AS kind, 'HAS_TYPE' AS name, COUNT { ()-[:HAS_TYPE]->() } AS count
UNION ALL
RETURN 'relationship type' AS kind, 'SEGMENTATION_OF' AS name, COUNT { ()-[:SEGMENTATION_OF]->() } AS count
UNION ALL
RETURN 'relationship type' AS kind, 'ALIGNED_TO' AS name, COUNT { ()-[:ALIGNED_TO]->() } AS count
"""

# What is unique: [label, properties]. A node key implies it.
UNIQUE_CONSTRAINTS: Final[LiteralString] = """
SHOW CONSTRAINTS YIELD type, entityType, labelsOrTypes, properties
WHERE entityType = 'NODE' AND type IN ['UNIQUENESS', 'NODE_PROPERTY_UNIQUENESS', 'NODE_KEY']
RETURN labelsOrTypes[0] AS label, properties
"""

# The names of the annotation types that there are.
ANNOTATION_TYPES: Final[LiteralString] = "MATCH (k:AnnotationType) RETURN collect(k.name) AS names"

FAULTY_MANIFESTATIONS: Final[LiteralString] = """
MATCH (m:Manifestation)
WITH m LIMIT $limit
WITH m.id AS id
WHERE id IS NULL OR NOT id IS :: STRING OR size(id) = 0
RETURN 'have an id that is not text, or none' AS fault, count(*) AS count, min(toStringOrNull(id)) AS example
"""

FAULTY_ANNOTATIONS: Final[LiteralString] = """
MATCH (a:Annotation)
WITH a LIMIT $limit
WITH a.id AS id,
  COUNT { (a)-[:ANNOTATION_OF]->(:Manifestation) } AS manifestations,
  COUNT { (a)-[:HAS_TYPE]->(:AnnotationType) } AS types
UNWIND [
  CASE WHEN id IS NULL OR NOT id IS :: STRING THEN 'have an id that is not text, or none' END,
  CASE WHEN manifestations = 0 THEN 'belong to no manifestation' END,
  CASE WHEN manifestations > 1 THEN 'belong to several manifestations' END,
  CASE WHEN types = 0 THEN 'have no type' END
] AS fault
WITH fault, id WHERE fault IS NOT NULL
RETURN fault, count(*) AS count, min(toStringOrNull(id)) AS example
"""

FAULTY_SEGMENTS: Final[LiteralString] = """
MATCH (s:Segment)
WITH s LIMIT $limit
WITH s.id AS id, s.span_start AS start, s.span_end AS end,
  EXISTS { (s)-[:SEGMENTATION_OF]->(:Annotation) } AS belongs
UNWIND [
  CASE WHEN id IS NULL OR NOT id IS :: STRING THEN 'have an id that is not text, or none' END,
  CASE WHEN NOT belongs THEN 'belong to no annotation' END,
  CASE
    WHEN start IS NULL OR end IS NULL THEN 'have no span'
    WHEN NOT (start IS :: INTEGER AND end IS :: INTEGER) THEN 'have a span that is not made of integers'
    WHEN start < 0 OR end < 0 THEN 'have a negative span'
    WHEN start > end THEN 'have a reversed span'
  END
] AS fault
WITH fault, id WHERE fault IS NOT NULL
RETURN fault, count(*) AS count, min(toStringOrNull(id)) AS example
"""
