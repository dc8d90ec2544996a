{{- /*
Why a pod that asks for the sidecar cannot have it: a list of {name, problem, message}, where problem is CEL that is true of such a pod. The mutating policy
leaves these pods alone, the validating policy tells the user. What we inserted ourselves is no problem, since policies may see a pod twice.
*/ -}}

{{- define "outrigger.injector.conditions" -}}
{{- $context := include "outrigger.injected" . | fromYaml -}}
{{- $container := include "outrigger-sidecar.containerName" $context | toRawJson -}}
{{- $directory := include "outrigger-sidecar.socketDirectory" $context -}}
{{- $socket := include "outrigger-sidecar.socketVolume" $context -}}
{{- $volumes := list -}}
{{- range include "outrigger-sidecar.volumes" $context | fromYamlArray }}{{ $volumes = append $volumes .name }}{{ end -}}
{{- $present := include "outrigger.injector.present" . -}}
{{- $mounted := printf "c.name != %s && has(c.volumeMounts) && c.volumeMounts.exists(m, m.mountPath in [%q, %q] && m.name != %q)" $container $directory (print $directory "/") $socket -}}
- name: hostNetwork
  problem: has(object.spec.hostNetwork) && object.spec.hostNetwork
  message: it has hostNetwork, so that the sidecar's ports would be the node's
- name: staticPod
  problem: has(object.metadata.annotations) && "kubernetes.io/config.mirror" in object.metadata.annotations
  message: it is a static pod, which its node runs as the node's file has it
- name: windows
  problem: has(object.spec.os) && object.spec.os.name == "windows"
  message: the sidecar is a program for Linux
- name: containerName
  problem: |-
    object.spec.containers.exists(c, c.name == {{ $container }}) || has(object.spec.initContainers) && object.spec.initContainers.exists(c, c.name == {{ $container }} && !(has(c.restartPolicy) && c.restartPolicy == "Always"))
  message: it has a container of its own called {{ include "outrigger-sidecar.containerName" $context }}
- name: volumeName
  problem: |-
    has(object.spec.volumes) && object.spec.volumes.exists(v, v.name in {{ $volumes | toRawJson }}) && !({{ $present }})
  message: it has a volume of its own called {{ join " or " $volumes }}
- name: mountPath
  problem: |-
    object.spec.containers.exists(c, {{ $mounted }}) || has(object.spec.initContainers) && object.spec.initContainers.exists(c, {{ $mounted }})
  message: a container mounts something of its own at {{ $directory }}
{{- end }}

{{- /* CEL: whether the pod has the sidecar. */ -}}
{{- define "outrigger.injector.present" -}}
{{- $container := include "outrigger-sidecar.containerName" . | toRawJson -}}
has(object.spec.initContainers) && object.spec.initContainers.exists(c, c.name == {{ $container }} && has(c.restartPolicy) && c.restartPolicy == "Always")
{{- end }}

{{- /* What annotations that are settings begin with. */ -}}
{{- define "outrigger.injector.prefix" -}}config.outrigger.io/{{- end }}

{{- /* Settings of CPU and memory, and the policy's variables for them. */ -}}
{{- define "outrigger.injector.resources" -}}
cpu-limit: cpuLimit
cpu-request: cpuRequest
memory-limit: memoryLimit
memory-request: memoryRequest
{{- end }}

{{- /* CEL: whether the setting `key` is a configuration key. Where the sidecar listens is nobody's choice: the application, the probes and drain look there. */ -}}
{{- define "outrigger.injector.isConfiguration" -}}
key.contains(".") && key == key.lowerAscii() && !(key in ["listen.tcp", "listen.unix", "listen.unix_mode", "admin.listen"])
{{- end }}

{{- define "outrigger.injector.requirements" -}}
{{- if not (semverCompare ">=1.36.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "outrigger: injection needs Kubernetes 1.36 or newer, and this is %s. Set injector.enabled=false, and use the library chart outrigger-sidecar, `outrigger inject`, or gateway.enabled=true instead." .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- end }}
