"""Data modeling: spaces, containers, views, instances."""

import pytest
from cognite.client.data_classes import data_modeling as dm
from cognite.client.exceptions import CogniteAPIError

VIEW = dm.ViewId("sp", "Pump", "v1")


@pytest.fixture
def models(client):
    client.data_modeling.spaces.apply(dm.SpaceApply("sp"))
    properties = {
        "name": dm.ContainerProperty(dm.data_types.Text(), nullable=False),
        "tags": dm.ContainerProperty(dm.data_types.Text(is_list=True)),
        "parent": dm.ContainerProperty(dm.data_types.DirectRelation()),
        "seen": dm.ContainerProperty(dm.data_types.Timestamp()),
    }
    client.data_modeling.containers.apply(dm.ContainerApply("sp", "Pump", properties, used_for="all"))
    container = dm.ContainerId("sp", "Pump")
    mapped = {name: dm.MappedPropertyApply(container, name) for name in properties}
    client.data_modeling.views.apply(dm.ViewApply("sp", "Pump", "v1", properties=mapped))
    return client.data_modeling


def node(external_id, version=None, **properties):
    return dm.NodeApply("sp", external_id, existing_version=version, sources=[dm.NodeOrEdgeData(VIEW, properties)])


def test_views(models):
    [view] = models.views.retrieve(VIEW)
    assert view.used_for == "all"
    assert isinstance(view.properties["tags"].type, dm.data_types.Text) and view.properties["tags"].type.is_list
    assert [view.external_id for view in models.views.list(space="sp")] == ["Pump"]
    assert models.views.list(space="other") == []
    assert models.spaces.retrieve("none") is None


def test_versions_of_a_view(models, emulator):
    container = dm.ContainerId("sp", "Pump")
    mapped = {"name": dm.MappedPropertyApply(container, "name")}
    for version in ("v3", "v2"):
        models.views.apply(dm.ViewApply("sp", "Pump", version, properties=mapped))
    retrieved = models.views.retrieve(("sp", "Pump"))
    assert {view.version for view in retrieved} == {"v1", "v2", "v3"}
    assert max(retrieved, key=lambda view: view.created_time).version == "v2"
    assert [view.version for view in models.views.retrieve(("sp", "Pump"), all_versions=False)] == ["v2"]
    assert [view.version for view in models.views.list(space="sp")] == ["v2"]
    assert len(models.views.list(space="sp", all_versions=True)) == 3
    # Another version of a view shows the same instances, of the same containers.
    models.instances.apply([node("a", name="A", tags=["x"])])
    newest = dm.ViewId("sp", "Pump", "v2")
    assert models.instances.retrieve(nodes=("sp", "a"), sources=newest).nodes[0].properties[newest] == {"name": "A"}
    view = {"space": "sp", "externalId": "Pump", "version": "v 1", "properties": {}}
    emulator.refused("/models/views", {"items": [view]})


def test_nodes(models):
    made = models.instances.apply([node("a", name="A", tags=["x"], parent={"space": "sp", "externalId": "b"})])
    assert (made.nodes[0].version, made.nodes[0].was_modified) == (1, True)
    again = models.instances.apply([node("a", name="A")])
    assert (again.nodes[0].version, again.nodes[0].was_modified) == (1, False)
    found = models.instances.retrieve(nodes=("sp", "a"), sources=VIEW).nodes[0]
    assert found.properties[VIEW] == {"name": "A", "tags": ["x"], "parent": {"space": "sp", "externalId": "b"}}
    has_data = dm.filters.HasData(views=[VIEW])
    assert [item.external_id for item in models.instances.list(sources=VIEW, filter=has_data)] == ["a"]
    assert [item.external_id for item in models.instances.list()] == ["a", "b"]
    gone = models.instances.delete(nodes=[("sp", "a"), ("sp", "none")])
    assert [item.external_id for item in gone.nodes] == ["a"]


def test_all_or_nothing_and_versions(models):
    with pytest.raises(CogniteAPIError) as refused:
        models.instances.apply([node("a", name="A"), node("b", tags=["x"])])
    assert refused.value.code == 400 and "name" in refused.value.message
    assert models.instances.list() == []
    models.instances.apply([node("a", name="A")])
    with pytest.raises(CogniteAPIError) as refused:
        models.instances.apply([node("a", version=0, name="B")])
    assert refused.value.code == 409
    models.instances.apply([node("a", version=0, name="B"), node("b", name="B")], skip_on_version_conflict=True)
    names = {item.external_id: item.properties[VIEW]["name"] for item in models.instances.list(sources=VIEW)}
    assert names == {"a": "A", "b": "B"}


def test_edges(models):
    edge = dm.EdgeApply("sp", "e", type=("sp", "t"), start_node=("sp", "a"), end_node=("sp", "b"))
    with pytest.raises(CogniteAPIError):
        models.instances.apply(edges=edge)
    models.instances.apply(edges=edge, auto_create_start_nodes=True, auto_create_end_nodes=True)
    [found] = models.instances.list(instance_type="edge")
    assert (found.start_node.external_id, found.end_node.external_id) == ("a", "b")


def test_many_nodes(models):
    models.instances.apply([node(f"n{at:04}", name=str(at)) for at in range(1500)])
    assert len(models.instances.list(sources=VIEW, limit=None)) == 1500


@pytest.mark.parametrize("properties", [{"name": 1}, {"name": "a", "seen": "x"}, {"name": "a", "none": 1}])
def test_refused_values(models, properties):
    with pytest.raises(CogniteAPIError) as refused:
        models.instances.apply([node("a", **properties)])
    assert refused.value.code == 400


def names(models, **filters):
    """The external ids of the nodes of the view that a filter leaves."""
    return [item.external_id for item in models.instances.list(sources=VIEW, **filters)]


def test_filters(models):
    models.instances.apply([
        node("a", name="A", tags=["x", "y"], seen="2024-01-01T01:00:00+01:00"),
        node("b", name="ab", tags=["y"], seen="2024-01-01T00:00:00.001", parent={"space": "sp", "externalId": "a"}),
        node("c", name="a"),
    ])
    prop = VIEW.as_property_ref
    f = dm.filters
    for filter, found in [
        (f.Equals(prop("name"), "a"), ["c"]),
        (f.In(prop("name"), ["a", "A", "none"]), ["a", "c"]),
        (f.Prefix(prop("name"), "a"), ["b", "c"]),
        (f.Exists(prop("tags")), ["a", "b"]),
        (f.Not(f.Exists(prop("tags"))), ["c"]),
        (f.ContainsAll(prop("tags"), ["x", "y"]), ["a"]),
        (f.ContainsAny(prop("tags"), ["x", "y"]), ["a", "b"]),
        (f.Range(prop("seen"), gt="2024-01-01T00:00:00Z"), ["b"]),
        (f.Range(prop("seen"), gte="2024-01-01T00:00:00Z", lt="2024-01-01T00:00:00.001Z"), ["a"]),
        (f.Equals(prop("parent"), {"space": "sp", "externalId": "a"}), ["b"]),
        (f.And(f.Prefix(prop("name"), "a"), f.Equals(["node", "externalId"], "c")), ["c"]),
    ]:
        assert names(models, filter=f.And(f.HasData(views=[VIEW]), filter)) == found, filter.dump()


@pytest.mark.parametrize(
    "filter",
    [
        dm.filters.Equals(VIEW.as_property_ref("none"), "a"),
        dm.filters.Equals(VIEW.as_property_ref("name"), 1),
        dm.filters.Equals(VIEW.as_property_ref("tags"), "x"),
        dm.filters.In(VIEW.as_property_ref("name"), ["a", 1]),
        dm.filters.Prefix(VIEW.as_property_ref("tags"), "x"),
        dm.filters.ContainsAny(VIEW.as_property_ref("name"), ["x"]),
        dm.filters.Range(VIEW.as_property_ref("seen"), gt="yesterday"),
        dm.filters.Range(VIEW.as_property_ref("seen"), gt="2024-01-01T00:00:00", gte="2024-01-01T00:00:00"),
        dm.filters.Range(VIEW.as_property_ref("parent"), gt="x"),
        dm.filters.Equals(["edge", "externalId"], "x"),
        dm.filters.Equals(["node", "startNode"], {"space": "sp", "externalId": "a"}),
        {"and": []},
        {"equals": {"property": ["node", "space"], "value": "sp", "more": 1}},
    ],
)
def test_refused_filters(models, filter):
    with pytest.raises(CogniteAPIError) as refused:
        models.instances.list(sources=VIEW, filter=filter)
    assert refused.value.code == 400


def raw(properties, **more):
    source = {"source": VIEW.dump(), "properties": properties}
    return {"instanceType": "node", "space": "sp", "externalId": "x", "sources": [source], **more}


def test_limits_of_the_description(models, emulator):
    extra = {
        "info": dm.ContainerProperty(dm.data_types.Json()),
        "others": dm.ContainerProperty(dm.data_types.DirectRelation(is_list=True)),
        "more": dm.ContainerProperty(dm.data_types.DirectRelation(is_list=True, max_list_size=2000)),
        "state": dm.ContainerProperty(dm.data_types.Enum({"on": dm.data_types.EnumValue(), "odd": dm.data_types.EnumValue()}, "odd")),
    }
    models.containers.apply(dm.ContainerApply("sp", "Extra", extra, used_for="all"))
    container = dm.ContainerId("sp", "Extra")
    mapped = {name: dm.MappedPropertyApply(container, name) for name in extra}
    view = dm.ViewId("sp", "Extra", "v1")
    models.views.apply(dm.ViewApply("sp", "Extra", "v1", properties=mapped))
    assert isinstance(models.views.retrieve(view)[0].properties["state"].type, dm.data_types.Enum)
    target = {"space": "sp", "externalId": "t"}
    apply = lambda **properties: models.instances.apply(dm.NodeApply("sp", "x", sources=[dm.NodeOrEdgeData(view, properties)]))
    for good in [
        {"others": [target] * 100, "more": [target] * 2000, "state": "on"},
        {"info": {"k" * 128: "x" * 10_240}},
        {"info": {f"k{i}": i for i in range(256)}},
        {"others": None, "state": None},
    ]:
        apply(**good)
    for bad in [
        {},
        {"others": []},
        {"others": [target] * 101},
        {"more": [target] * 2001},
        {"state": "off"},
        {"state": "odd"},
        {"state": 1},
        {"info": {"k" * 129: 1}},
        {"info": {"a": {f"k{i}": i for i in range(257)}}},
        {"info": {"k": "x" * 10_241}},
        {"info": {f"k{i}": "x" * 10_000 for i in range(5)}},
    ]:
        with pytest.raises(CogniteAPIError) as refused:
            apply(**bad)
        assert refused.value.code == 400, bad
    kind = {"type": "enum", "values": {"true": {}}}
    emulator.refused("/models/containers", {"items": [{"space": "sp", "externalId": "E", "properties": {"e": {"type": kind}}}]})


def test_null_is_no_value(models, emulator):
    post = lambda path, body: emulator.call("POST", path, json=body)
    nothing = dict.fromkeys(("autoCreateDirectRelations", "autoCreateStartNodes", "autoCreateEndNodes", "skipOnVersionConflict"))
    for name in ("replace", "delete"):
        emulator.refused("/models/instances", {"items": [raw(None)], name: None})
    assert post("/models/instances", {"items": [raw(None, type=None)], **nothing}).status_code == 200
    assert post("/models/instances", {"items": [{"instanceType": "node", "space": "sp", "externalId": "y"}]}).status_code == 200
    listed = post("/models/instances/list", {"instanceType": "node", "cursor": None, "limit": None, "sort": None}).json()
    assert [item["externalId"] for item in listed["items"]] == ["x", "y"]
    error = emulator.refused("/models/instances", {"items": [raw({"name": None})]})
    assert error["message"] == "Invalid value for non-nullable property 'name'. Value cannot be null."
    assert models.instances.list(sources=VIEW, filter=dm.filters.HasData(views=[VIEW])) == []


@pytest.mark.parametrize(
    "item", [raw({}), raw({"name": "N"}, sources=[]), raw({"name": "N"}, sources=["x"]), raw({"name": "N"}, existingVersion="1")]
)
def test_refused_items(models, emulator, item):
    emulator.refused("/models/instances", {"items": [item]})
