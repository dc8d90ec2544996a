"""Pods as users write them, and what tests look for in them."""

INJECT = {"outrigger.io/inject": "true"}


def container(name, **more):
    return {"name": name, "image": f"registry.example/{name}:1", **more}


def restricted(name):
    """A container that the restricted pod security standard admits."""
    context = {"allowPrivilegeEscalation": False, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}
    return container(name, securityContext=context)


def pod(name="app", labels=INJECT, init=(), containers=(container("app"),), **spec):
    spec = {"containers": list(containers), **spec}
    if init:
        spec["initContainers"] = list(init)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def deployment(name="app", template=None, labels=None):
    template = template or pod(labels=INJECT | {"app": name})
    template["metadata"].pop("name", None)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": {"metadata": template["metadata"], "spec": template["spec"]}},
    }


def names(containers):
    return [container["name"] for container in containers or []]


def sidecars(pod):
    return [c for c in pod["spec"].get("initContainers", []) + pod["spec"]["containers"] if c["name"] == "outrigger"]


def without_token(thing):
    """Without the service account's token, which the API server mounts under a random name."""
    if isinstance(thing, list):
        return [without_token(item) for item in thing if not str(item.get("name", "") if isinstance(item, dict) else "").startswith("kube-api-access-")]
    if isinstance(thing, dict):
        return {key: without_token(value) for key, value in thing.items()}
    return thing


def environment(container):
    return {e["name"]: e.get("value") for e in container.get("env", [])}


def mounts(container):
    return {m["mountPath"]: m["name"] for m in container.get("volumeMounts", [])}
