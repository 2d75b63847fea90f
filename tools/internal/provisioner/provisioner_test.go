package provisioner

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func waitingClaim() *corev1.PersistentVolumeClaim {
	class := "local"
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Name: "state", Namespace: "detections", UID: "u1",
			Annotations: map[string]string{claimedFor: provisionerName, selectedNode: "local"},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class,
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod},
			Resources: corev1.VolumeResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("5Gi")},
			},
		},
		Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending},
	}
}

func TestAClaimWithItsNodeChosenIsPending(t *testing.T) {
	if !isPending(waitingClaim()) {
		t.Error("a claim that waits for this provisioner was passed over")
	}
}

func TestOtherClaimsAreLeftAlone(t *testing.T) {
	for what, change := range map[string]func(*corev1.PersistentVolumeClaim){
		"bound":               func(c *corev1.PersistentVolumeClaim) { c.Status.Phase = corev1.ClaimBound },
		"has its volume":      func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "v" },
		"being deleted":       func(c *corev1.PersistentVolumeClaim) { c.DeletionTimestamp = &metav1.Time{} },
		"another provisioner": func(c *corev1.PersistentVolumeClaim) { c.Annotations[claimedFor] = "other" },
		"no node chosen yet":  func(c *corev1.PersistentVolumeClaim) { delete(c.Annotations, selectedNode) },
	} {
		claim := waitingClaim()
		change(claim)
		if isPending(claim) {
			t.Errorf("a claim was taken that is not ours to serve: %s", what)
		}
	}
}

func TestAVolumeOffersWhatItsClaimAsksForAndBelongsToItAlone(t *testing.T) {
	claim := waitingClaim()
	volume := volumeFor(claim, "pvc-u1", "/volumes/pvc-u1")
	if got := volume.Spec.ClaimRef; got.UID != claim.UID || got.Name != claim.Name || got.Namespace != claim.Namespace {
		t.Errorf("the volume belongs to %+v", got)
	}
	if got := volume.Spec.AccessModes; len(got) != 1 || got[0] != corev1.ReadWriteOncePod {
		t.Errorf("the volume offers the modes %v", got)
	}
	if got := volume.Spec.Capacity.Storage().String(); got != "5Gi" {
		t.Errorf("the volume offers %s", got)
	}
	if got := volume.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0].Values; got[0] != "local" {
		t.Errorf("the volume is tied to %v", got)
	}
}
