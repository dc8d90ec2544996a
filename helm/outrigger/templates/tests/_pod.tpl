{{- /*
A pod of `helm test`: publishes a record, then reads one back, and so fails when either does not work. The image has no shell: one step is an init container.
Called with a dict: root, name, labels, env, volumes, mounts.
*/ -}}

{{- define "outrigger.test.pod" -}}
{{- $test := .root.Values.test -}}
{{- $image := include "outrigger-sidecar.image" (include "outrigger.injected" .root | fromYaml) -}}
apiVersion: v1
kind: Pod
metadata:
  {{- $hook := dict "helm.sh/hook" "test" "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded" }}
  {{- include "outrigger.metadata" (dict "root" .root "name" .name "annotations" $hook "labels" .labels) | nindent 2 }}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  {{- with .root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    fsGroup: 65532
    seccompProfile:
      type: RuntimeDefault
  initContainers:
    - name: publish
      args: ["publish", {{ $test.topic | quote }}, "a record of helm test"]
      {{- include "outrigger.test.container" (merge (dict "image" $image) .) | nindent 6 }}
  containers:
    - name: subscribe
      args: ["subscribe", {{ $test.topic | quote }}, "--count=1", "--group={{ $test.group }}", "--timeout={{ $test.timeout }}"]
      {{- include "outrigger.test.container" (merge (dict "image" $image) .) | nindent 6 }}
  {{- with .volumes }}
  volumes:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "outrigger.test.container" -}}
image: {{ .image | quote }}
imagePullPolicy: {{ .root.Values.sidecar.image.pullPolicy }}
{{- with .env }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
resources:
  requests:
    cpu: 10m
    memory: 32Mi
  limits:
    memory: 64Mi
securityContext:
  {{- toYaml .root.Values.sidecar.securityContext | nindent 2 }}
{{- with .mounts }}
volumeMounts:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
